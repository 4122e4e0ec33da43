"""Manifests, images and masks that are damaged or missing."""

from __future__ import annotations

from tests.reliability.cases import Case
from tests.reliability.damage import IMAGE, MASK, PADIM, SET, TESTED, both, cut, folder, image, remove, write

FIT = f"fit --config padim_folder --data.root {SET} --data.size 64 --model.encoder.weights null"
TABLE = f"{FIT} --data.layout table.csv"
CHECK = f"data check --root {SET}"
REPORT = ("data_check",)
HEAD = "path,split,kind,mask,group\n"
ROWS = "".join(f"train/good/{index:04}.png,train,good,,\n" for index in range(12)) + (
    "test/good/0000.png,test,good,,\ntest/polyp_subtle/0000.png,test,polyp,ground_truth/polyp_subtle/0000.png,\n"
)


def table(name: str, content: str | bytes, *says: str, words: str = TABLE) -> Case:
    """A manifest with a content."""
    return Case(
        words, ("table.csv", *says) if not says or says[0] else says[1:], write("table.csv", content), name=name
    )


MANIFESTS = (
    table("manifest: empty", ""),
    table("manifest: only a header", HEAD, "", str(SET), "no images to learn from"),
    table("manifest: no column of splits", HEAD.replace("split,", "") + ROWS, "'split'"),
    table("manifest: no column of paths", HEAD.replace("path", "file") + ROWS, "'path'"),
    table("manifest: semicolons", (HEAD + ROWS).replace(",", ";"), "commas"),
    table("manifest: no header", ROWS, "'kind'"),
    table("manifest: unknown split", HEAD + ROWS.replace(",test,good", ",validation,good"), "line 14", "'validation'"),
    table("manifest: no kind", HEAD + ROWS.replace(",test,good", ",test,"), "line 14", "kind"),
    table("manifest: no path", HEAD + ROWS + ",test,good,,\n", "line 16", "path"),
    table("manifest: a quote that is not closed", HEAD + ROWS.replace("train/good/0003", '"train/good/0003')),
    table("manifest: a field over the limit", HEAD + ROWS + "x" * 200_000 + ",test,good,,\n"),
    table("manifest: NUL bytes", HEAD + ROWS.replace("0003", "00\x0003"), "no such file"),
    table("manifest: UTF-16", (HEAD + ROWS).encode("utf-16"), "UTF-8"),
    table("manifest: UTF-16 without a mark", (HEAD + ROWS).encode("utf-16-le")),
    table("manifest: Latin-1", (HEAD + ROWS).encode() + b"test/gr\xf6\xdfe.png,test,good,,\n", "UTF-8"),
    table("manifest: binary", bytes(range(256))),
    table("manifest: an image", b"\x89PNG\r\n\x1a\n" + bytes(range(256))),
    table(
        "manifest: an image twice",
        HEAD + ROWS + "train/good/0000.png,train,good,,\n",
        "",
        "train/good/0000.png",
        "twice",
    ),
    table(
        "manifest: on both sides", HEAD + ROWS + "train/good/0000.png,test,good,,\n", "", "train/good/0000.png", "twice"
    ),
    table(
        "manifest: abnormal in training",
        HEAD + ROWS + "test/polyp_subtle/0001.png,train,polyp,,\n",
        "",
        "0001.png",
        "normal images only",
    ),
    table("manifest: a file that is not there", HEAD + ROWS + "train/good/9999.png,train,good,,\n", "", "9999.png"),
    table(
        "manifest: a mask that is not there",
        HEAD + ROWS.replace("ground_truth/polyp_subtle/0000.png", "gone.png"),
        "",
        "gone.png",
    ),
    table("manifest: a folder as image", HEAD + ROWS + "train/good,train,good,,\n", "", "train/good"),
    table("manifest: no training images", HEAD + "test/good/0000.png,test,good,,\n", "", "train"),
    table(
        "manifest: one training image",
        HEAD + "train/good/0000.png,train,good,,\ntest/good/0000.png,test,good,,\n",
        "",
        "train",
    ),
    *(
        table(
            f"manifest: kind {kind}",
            HEAD + ROWS.replace(",polyp,", f",{kind},"),
            "",
            "its kind",
            words=f"data prepare --root {SET} --layout table.csv --copy copied --output new.csv",
        )
        for kind in ("../../out", "/out", "..")
    ),
    Case(f"{FIT} --data.layout table.csv", ("table.csv",), name="manifest: missing"),
    Case(f"{FIT} --data.layout table.csv", ("table.csv",), folder("table.csv"), name="manifest: a folder"),
)


def seen(name: str, prepare: object, *says: str, only: str = "") -> tuple[Case, ...]:
    """Data that neither a fit nor a check lets through."""
    cases = (
        Case(FIT, says, prepare, name=f"fit: {name}"),  # type: ignore[arg-type]
        Case(CHECK, (str(SET), " error"), prepare, writes=REPORT, name=f"check: {name}"),  # type: ignore[arg-type]
    )
    return tuple(case for case in cases if not only or case.name.startswith(only))


IMAGES = (
    *seen("empty image", write(IMAGE, b""), str(IMAGE)),
    *seen("image that is cut", cut(IMAGE), str(IMAGE)),
    *seen("text named .png", write(IMAGE, "hello"), str(IMAGE)),
    *seen("zeros", write(IMAGE, bytes(1000)), str(IMAGE)),
    *seen("image of 1 x 1", image(IMAGE, (1, 1)), only="check"),
    *seen("image of 1 x 64", image(IMAGE, (1, 64)), only="check"),
    *seen("test image that is cut", cut(TESTED), str(TESTED), only="check"),
    *seen("test image of 1 x 1", image(TESTED, (1, 1)), str(TESTED), only="check"),
    *seen("mask of another size", image(MASK, (9, 9), 0, "L"), str(MASK), "9 x 9", only="fit"),
    *seen("empty mask file", write(MASK, b""), str(MASK)),
    *seen("mask that is text", write(MASK, "hello"), str(MASK)),
    *seen("mask that is cut", cut(MASK), str(MASK), only="check"),
    *seen("no training images", both(remove(SET / "train/good"), folder(SET / "train/good")), "train/good", only="fit"),
    *seen("no folder of training", remove(SET / "train"), str(SET)),
    *seen("masks without images", remove(TESTED), str(MASK)),
    *seen("one image on both sides", lambda: (SET / "test/good/0000.png").write_bytes(IMAGE.read_bytes()), str(IMAGE)),
    Case(f"test --ckpt_path {PADIM}", (str(MASK),), cut(MASK), name="test: mask that is cut"),
    Case(
        f"test --ckpt_path {PADIM}",
        (str(MASK), "9 x 9"),
        image(MASK, (9, 9), 0, "L"),
        name="test: mask of another size",
    ),
    Case(f"test --ckpt_path {PADIM}", (str(TESTED),), cut(TESTED), name="test: image that is cut"),
    Case(f"test --ckpt_path {PADIM}", (str(SET),), remove(SET / "test"), name="test: no test images"),
)

CASES = MANIFESTS + IMAGES
