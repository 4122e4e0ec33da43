"""Manifests, images and masks that are damaged, and what the other commands cannot be asked for."""

from __future__ import annotations

from tests.reliability.cases import Case
from tests.reliability.damage import (
    IMAGE,
    MASK,
    PADIM,
    SET,
    TESTED,
    array,
    both,
    cut,
    folder,
    image,
    remove,
    write,
)

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
        Case(CHECK, (str(SET), "errors"), prepare, writes=REPORT, name=f"check: {name}"),  # type: ignore[arg-type]
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
    *seen("no folder of training", remove(SET / "train"), str(SET), only="fit"),
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
_ = array

PREDICT = f"predict --ckpt_path {PADIM} --images"
SOME = f"{SET}/test/good"
PREDICTED = ("runs/padim_synthetic/version_0/predictions/",)
COMMANDS = (
    Case(f"{PREDICT}", ("--images names no file",), name="predict: no place"),
    Case(f"{PREDICT} nothing", ("nothing",)),
    Case(f"{PREDICT} 'nothing/**/*.png'", ("nothing/**/*.png",)),
    Case(f"{PREDICT} empty", ("empty",), folder("empty")),
    Case(f"{PREDICT} ''", ("--images",)),
    Case(f"{PREDICT} {SOME} --maps jpg", ("--maps jpg", "png")),
    Case(f"{PREDICT} {SOME} --maps", ("--maps", "png")),
    Case(f"{PREDICT} {SOME} --overlays maybe", ("--overlays maybe", "true")),
    Case(f"{PREDICT} {SOME} --output a b", ("--output a b",)),
    Case(f"{PREDICT} {SOME} --output there", ("there",), write("there", "a file"), name="predict: output is a file"),
    Case(f"{PREDICT} {SOME} --output /proc/nowhere", ("/proc/nowhere",)),
    Case(
        f"{PREDICT} {SOME} --output there",
        ("there",),
        write("there/predictions.csv", "path\n"),
        name="predict: output has predictions",
    ),
    Case(f"predict --ckpt_path {PADIM} --maps png", ("--maps", "--images")),
    Case(f"{PREDICT} {SOME} --data.batch_size 0", ("data.batch_size is 0",)),
    Case(f"{PREDICT} text.png", ("text.png", "cannot be decoded"), write("text.png", "hello"), 3, PREDICTED),
    Case(f"{PREDICT} {SOME} cut.png", ("cut.png",), write("cut.png", b"\x89PNG\r\n\x1a\n"), 3, PREDICTED),
    Case(
        f"{PREDICT} {SOME} one.png", ("one.png",), write("one.png", b""), 3, PREDICTED, name="predict: an empty image"
    ),
    Case(
        f"{PREDICT} notes.txt",
        ("notes.txt",),
        write("notes.txt", "hello"),
        3,
        PREDICTED,
        name="predict: a file that is no image",
    ),
    Case(f"{PREDICT} configs/padim_folder.yaml", ("padim_folder.yaml",), None, 3, PREDICTED),
    Case("data", ("COMMAND", "--help")),
    Case("data nothing", ("nothing", "synthesize")),
    Case("data check", ("--root",)),
    Case("data check --root ''", ("--root is empty",)),
    Case("data check --root nowhere", ("nowhere", "no such folder")),
    Case("data check --root /dev/null", ("/dev/null",)),
    Case("data check --root empty", ("empty",), folder("empty")),
    Case(f"{CHECK} --size 0", ("size is 0",)),
    Case(f"{CHECK} --size x", ("--size", "x")),
    Case(f"{CHECK} --size 1 2 3", ("--size",)),
    Case(f"{CHECK} --crop x", ("--crop",)),
    Case(f"{CHECK} --crop 0 0 2 1", ("crop is",)),
    Case(f"{CHECK} --fit bent", ("fit is 'bent'",)),
    Case(f"{CHECK} --window x", ("window is 'x'",)),
    Case(f"{CHECK} --axis 3", ("axis is 3",)),
    Case(f"{CHECK} --layout nothing", ("layout is 'nothing'",)),
    Case(f"{CHECK} --split_seed -1", ("--split_seed is -1",)),
    Case(f"{CHECK} --outptu x", ("--outptu",)),
    Case(f"{CHECK} --output there", ("there",), write("there", ""), name="check: output is a file"),
    Case(f"{CHECK} --output /proc/nowhere", ("/proc/nowhere",)),
    Case(f"data prepare --root {SET} --output there.csv", ("there.csv", "already"), write("there.csv", "")),
    Case(
        f"data prepare --root {SET} --output there/x.csv",
        ("there",),
        write("there", ""),
        name="prepare: file as folder",
    ),
    Case(f"data prepare --root {SET} --copy there", ("there",), write("there", ""), name="prepare: copy into a file"),
    Case(f"data prepare --root {SET} --copy /proc/nowhere", ("/proc/nowhere",)),
    Case(f"data prepare --root {SET} --copy {SET}", (str(SET),), name="prepare: copy onto itself"),
    Case(f"data prepare --root {SET} --copy new --size 0", ("size is 0",)),
    Case(f"data prepare --root {SET} --copy new --fit letterbox", ("--fit letterbox",)),
    Case("data prepare --root nowhere", ("nowhere",)),
    Case("data synthesize --root new --size 0", ("size is 0",)),
    Case("data synthesize --root new --size 3", ("--size is 3",)),
    Case("data synthesize --root new --size x", ("--size", "x")),
    Case("data synthesize --root new --train -1", ("--train is -1",)),
    Case("data synthesize --root new --test_abnormal -1", ("--test_abnormal is -1",)),
    Case("data synthesize --root new --seed -1", ("--seed is -1",)),
    Case("data synthesize --root new --name lung", ("--name", "fundus")),
    Case("data synthesize --root there", ("there",), write("there", ""), name="synthesize: a file as folder"),
    Case("data synthesize --root /proc/nowhere", ("/proc/nowhere",)),
    Case(f"data synthesize --root {SET}", (str(SET),), name="synthesize: a set is there"),
    Case("data list --root x y", ("y",)),
    Case(f"export --ckpt_path {PADIM} --output nowhere/x.onnx", ("nowhere/x.onnx",)),
    Case(f"export --ckpt_path {PADIM} --output x.pt", ("x.pt", ".onnx")),
    Case(f"export --ckpt_path {PADIM} --output there.onnx", ("there.onnx",), folder("there.onnx")),
    Case(f"export --ckpt_path {PADIM} --output /proc/x.onnx", ("/proc/x.onnx",)),
    Case(f"export --ckpt_path {PADIM} --format tensorrt", ("--format", "onnx")),
    Case(f"export --ckpt_path {PADIM} --input int", ("--input", "uint8")),
    Case("encoders nothing18", ("nothing18", "ccd encoders")),
    Case("encoders '['", ("'['", "ccd encoders")),
    Case("encoders ''", ("empty",)),
    Case("encoders resnet18 resnet50", ("resnet50",)),
    Case("nothing", ("'nothing'", "ccd --help")),
    Case("Fit", ("'Fit'", "did you mean fit?")),
    Case("--nothing", ("'--nothing'", "ccd --help")),
    Case("study", ("STUDY",)),
    Case("study nothing", ("nothing", "bmad")),
    Case("study ''", ("STUDY",), name="study: empty name"),
    Case("study data", ("data",), name="study: a folder"),
    *(
        Case("study mine.yaml", ("mine.yaml", *says), write("mine.yaml", content), name=f"study: {name}")
        for name, content, says in (
            ("empty", "", ()),
            ("a list", "- 1\n", ()),
            ("no YAML", "sets: {", ()),
            ("binary", bytes(range(256)), ()),
            ("not UTF-8", b"sets: {gr\xf6\xdfe: x}\n", ()),
            ("no sets", "encoders: {a: null}\ndetectors: {p: padim_folder}\n", ("sets",)),
            ("sets is a number", "sets: 3\nencoders: {a: null}\ndetectors: {p: padim_folder}\n", ("sets",)),
            ("no encoders", "sets: {a: data}\nencoders: {}\ndetectors: {p: padim_folder}\n", ("encoders",)),
            ("unknown key", "sets: {a: b}\nencoders: {a: null}\ndetector: {p: padim_folder}\n", ("detector",)),
            ("unknown config", "sets: {a: b}\nencoders: {a: null}\ndetectors: {p: padim_foldr}\n", ("padim_foldr",)),
            (
                "seeds of words",
                "sets: {a: b}\nencoders: {a: null}\ndetectors: {p: padim_folder}\nseeds: [x]\n",
                ("seeds",),
            ),
            (
                "seed below 0",
                "sets: {a: b}\nencoders: {a: null}\ndetectors: {p: padim_folder}\nseeds: [-1]\n",
                ("seeds",),
            ),
            ("a key twice", "sets: {a: b, a: c}\nencoders: {a: null}\ndetectors: {p: padim_folder}\n", ("'a'",)),
            ("a path as name", "sets: {../../a: b}\nencoders: {a: null}\ndetectors: {p: padim_folder}\n", ("../../a",)),
            ("weights not there", "sets: {a: b}\nencoders: {a: no.pt}\ndetectors: {p: padim_folder}\n", ("no.pt",)),
            ("data not there", "sets: {a: nowhere}\nencoders: {a: null}\ndetectors: {p: padim_folder}\n", ("nowhere",)),
            (
                "a bad option",
                "sets: {a: data/synthetic_colonoscopy}\nencoders: {a: null}\ndetectors: {p: padim_folder}\n"
                "options: {model.blurr: 1}\n",
                ("blurr",),
            ),
        )
        if name != "data not there"
    ),
)
CASES = MANIFESTS + IMAGES + COMMANDS
