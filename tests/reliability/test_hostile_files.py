"""Files from someone else: names that become paths, files that are none, archives that unfold, texts for terminals."""

from __future__ import annotations

import io
import os
import pickle
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ccd_lightning import load
from ccd_lightning.checkpoints import CONFIG_KEY, DIVISION_KEY, read_checkpoint
from ccd_lightning.cli.relocation import ORIGIN_KEY
from ccd_lightning.data.manifest import Manifest, Row
from ccd_lightning.errors import UserError
from ccd_lightning.memory import peak_memory, reset_peak_memory
from tests.reliability.trials import attempt, in_time

RUN = Path("runs/padim_synthetic/version_0")
DATA = Path("data/synthetic_colonoscopy")
FIT = "fit --config padim_synthetic --model.encoder.weights"
Doctor = Callable[[dict[str, Any]], object]


def table(folder: Path, kind: str = "polyp", path: str = "test/polyp_subtle/0000.png", mask: str = "") -> Path:
    """A manifest of a folder, with one abnormal image."""
    lines = [f"{split}/good/{name},{split},good,," for split in ("train", "test")
             for name in sorted(os.listdir(folder / split / "good"))]  # fmt: skip
    file = folder / "table.csv"
    file.write_text("\n".join(["path,split,kind,mask,group", *lines, f"{path},test,{kind},{mask},"]) + "\n")
    return file


# Names that become paths


@pytest.mark.parametrize(
    "kind",
    ["../../escaped", "{}/escaped", "..", ".", "a/b", "a\\b", "good/../../x", "./..", "a\0b", "x" * 300, "é" * 130],
)
def test_kinds_that_are_no_names_of_folders_are_refused(
    kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here := tmp_path / "deep" / "here").mkdir(parents=True)
    monkeypatch.chdir(here)
    file = table(folder, kind.format(tmp_path))
    before = set(tmp_path.rglob("*"))
    message = attempt(["data", "prepare", "--root", str(file), "--copy", "copied", "--output", "o.csv"], capsys)
    assert "cannot be the name of a folder" in message
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["~", "-rf", "CON", "=cmd()", "two words", "\x1b[31m", "pol\udcffyp", "x" * 255])
def test_kinds_that_are_names_of_folders_are_accepted(kind: str) -> None:
    assert Manifest(Path(), [Row(Path("a"), "test", kind)]).rows[0].anomaly_type == kind


@pytest.mark.parametrize("path", ["../../../outside.png", "test/good/../../../outside.png"])
def test_images_elsewhere_are_copied_to_where_the_others_are(
    path: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / path).resolve().write_bytes((folder / "test/good/0000.png").read_bytes())
    file = table(folder, path=path)
    attempt(
        ["data", "prepare", "--root", str(file), "--copy", "copied", "--output", "o.csv", "--size", "32"], capsys, (0,)
    )
    assert len([*(tmp_path / "copied/test/polyp").iterdir()]) == 1
    assert {found.name for found in tmp_path.iterdir()} <= {"copied", "o.csv", "images", "outside.png"}


# What is no regular file


def fifo(path: Path) -> None:
    os.mkfifo(path)


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


SPECIAL: dict[str, Callable[[Path], object]] = {
    "fifo": fifo,
    "socket": bound,
    "zeros": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "folder": lambda path: path.mkdir(),
}
PLACES: dict[str, tuple[str, str, tuple[int, ...]]] = {  # what is replaced, the command, and its exit codes
    "config": ("x.yaml", "fit --config x.yaml", (2,)),
    "checkpoint": ("x.ckpt", "test --ckpt_path x.ckpt", (2,)),
    "checkpoint to export": ("x.ckpt", "export --ckpt_path x.ckpt", (2,)),
    "weights": ("x.pth", f"{FIT} x.pth", (2,)),
    "manifest": ("x.csv", "data check --root x.csv", (2,)),
    "layout": ("x.csv", f"data check --root {DATA} --layout x.csv", (2,)),
    "image to predict": ("x.png", "predict --images x.png", (2, 3)),
    "image in a folder": (f"{DATA}/test/good/x.png", f"data check --root {DATA}", (0, 2)),
    "mask": (f"{DATA}/ground_truth/polyp_subtle/0000.png", f"data check --root {DATA}", (2,)),
    "record": (f"{RUN}/run.json", "compare runs/padim_synthetic runs/igd_synthetic", (0, 2)),
    "metrics": (f"{RUN}/metrics.json", f"compare {RUN} runs/igd_synthetic", (2,)),
    "predictions": (f"{RUN}/predictions.csv", f"compare {RUN} runs/igd_synthetic", (2,)),
    "pixels": (f"{RUN}/pixels.npz", f"compare {RUN} runs/igd_synthetic", (0, 2)),
    "study": ("x.yaml", "study x.yaml", (2,)),
    "synthesis": (f"{DATA}/synthesis.json", f"data synthesize --root {DATA}", (2,)),
    "medianomaly": ("set/data.json", "data check --root set --layout medianomaly", (2,)),
}


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        *((kind, place) for kind in ("fifo", "zeros") for place in PLACES),
        *((kind, place) for kind in ("socket", "loop", "folder") for place in ("config", "image to predict", "mask")),
    ],
)
def test_pipes_and_devices_are_never_waited_for(
    kind: str, place: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, words, codes = PLACES[place]
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).unlink(missing_ok=True)
    SPECIAL[kind](Path(path))
    codes = (0, 2) if kind == "folder" and place != "config" else codes  # a folder is no image, and no mask
    message = attempt(words, capsys, codes)
    assert "Traceback" not in message


@pytest.mark.parametrize("name", ["config.yaml", "manifest.csv"])
@pytest.mark.export
def test_a_pipe_in_a_runs_folder_is_not_read(name: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (RUN / name).unlink()
    os.mkfifo(RUN / name)
    assert "Checked against torch on 3 images of noise" in attempt(
        f"export --ckpt_path {RUN} --format torch", capsys, (0,)
    )


# Checkpoints


def zipped(
    change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED, more: dict[str, bytes] | None = None
) -> bytes:
    """A checkpoint whose archive was written anew."""
    torch.save({"state_dict": {"a": torch.zeros(3)}}, stored := io.BytesIO())
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(made := io.BytesIO(), "w", compression) as target:
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
        for name, content in (more or {}).items():
            target.writestr(name, content)
    return made.getvalue()


def keep(name: str, content: bytes) -> bytes:
    return content


class Touch:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("touched"),)


def pickled(code: bytes) -> bytes:
    return zipped(lambda name, content: code if name.endswith("data.pkl") else content)


RAW: dict[str, Callable[[], bytes]] = {
    "part that unfolds": lambda: zipped(keep, zipfile.ZIP_DEFLATED, {"zeros": bytes(300_000_000)}),
    "tensor that unfolds": lambda: zipped(
        lambda name, content: bytes(300_000_000) if name.endswith("data/0") else content, zipfile.ZIP_DEFLATED
    ),
    "part outside": lambda: zipped(keep, more={"../../escaped": b"1", "/tmp/escaped": b"1"}),
    "object": lambda: pickled(pickle.dumps(Touch())),
    "object without an archive": lambda: pickle.dumps(Touch()),
    "command": lambda: pickled(b"cos\nsystem\n(S'touch touched'\ntR."),
    "evaluation": lambda: pickled(b'c__builtin__\neval\n(S\'open("touched", "w")\'\ntR.'),
    "torch's own reader": lambda: pickled(b"ctorch.serialization\nload\n(S'other.pkl'\ntR."),
    "torch's hub": lambda: pickled(b"ctorch.hub\nload\n(S'folder'\ntR."),
    "depth": lambda: pickled(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
    "long text": lambda: pickled(b"\x80\x02X" + (2**31 - 1).to_bytes(4, "little") + b"."),
    "empty": lambda: b"",
    "zeros": lambda: bytes(1000),
    "empty archive": lambda: b"PK\x05\x06" + bytes(18),
    "text": lambda: b"<html>\x1b[31m",
}


@pytest.mark.parametrize("words", ["test --ckpt_path x.ckpt", "export --ckpt_path x.ckpt", f"{FIT} x.ckpt"])
@pytest.mark.parametrize("name", RAW)
def test_hostile_checkpoints_are_refused(
    name: str, words: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x.ckpt").write_bytes(RAW[name]())
    reset_peak_memory()
    before = peak_memory()[0] or 0
    assert "x.ckpt: " in attempt(words, capsys)
    assert (peak_memory()[0] or 0) < before + 100_000_000
    assert not Path("touched").exists()
    assert not Path("/tmp/escaped").exists()


def doctored(change: Doctor) -> None:
    """Writes x.ckpt, a changed copy of a detector's checkpoint."""
    content = read_checkpoint(RUN / "checkpoints/best.ckpt")
    change(content)
    torch.save(content, "x.ckpt")


def setting(**values: Any) -> Doctor:
    """Changes the data's settings in the config."""

    def change(content: dict[str, Any]) -> None:
        config = yaml.safe_load(content[CONFIG_KEY])
        config["data"]["init_args"] |= values
        content[CONFIG_KEY] = yaml.safe_dump(config)

    return change


def tensor(name: Any, value: Any) -> Doctor:
    return lambda content: content["state_dict"].update({name: value})


def doubled(levels: int) -> list[Any]:
    """A list that is 2 ** levels numbers long when it is written out, and takes a kilobyte."""
    found: list[Any] = [1]
    for _ in range(levels):
        found = [found, found]
    return found


DOCTORED: dict[str, tuple[Doctor, str]] = {
    "folder with a zero byte": (setting(root="a\0b"), "a zero byte"),
    "folder that is a number": (setting(root=5), "data.root"),
    "folder that is a list": (setting(root=["a"]), "data.root"),
    "millions of images": (setting(root="data/new", train=10_000_000), "asks for images to be made"),
    "images of gigabytes": (setting(root="data/new", size=100_000), "asks for images to be made"),
    "images without a number": (setting(root="data/new", train="many"), "names many as data.train"),
    "config of megabytes": (
        lambda content: content.update({CONFIG_KEY: content[CONFIG_KEY] + "\nz: [" + "1," * 500_000 + "]\n"}),
        "more than 500,000 characters",
    ),
    "number as a name": (tensor(5, torch.zeros(1)), "5 in it is not a tensor"),
    "text": (tensor("threshold", "x"), "threshold in it is not a tensor"),
    "sparse tensor": (tensor("threshold", torch.zeros(4, 4).to_sparse()), "x.ckpt: "),
    "tensor without memory": (tensor("threshold", torch.zeros(10**12, device="meta")), "threshold"),
    "name with a command to the terminal": (
        tensor("\x1b[31mx\nccd: fine", "x"),
        "[31mx ccd: fine in it is not a tensor",
    ),
}


@pytest.mark.parametrize("name", DOCTORED)
def test_doctored_checkpoints_are_refused(name: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, message = DOCTORED[name]
    doctored(change)
    assert message in attempt("test --ckpt_path x.ckpt", capsys)
    assert not Path("data/new").exists()


def test_a_class_name_of_endless_length_is_refused_in_time(workspace: Path) -> None:
    doctored(lambda content: content["hyper_parameters"].update(_class_path=doubled(60)))
    with in_time(), pytest.raises(UserError, match="not a detector's checkpoint"):
        load("x.ckpt")


@pytest.mark.parametrize("value", [5, doubled(40), {"learned": 5}, {"learned": doubled(20), "held_out": "x"}])
def test_a_malformed_split_in_a_checkpoint_is_no_crash(
    value: Any, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doctored(lambda content: content.update({DIVISION_KEY: value, ORIGIN_KEY: "a\0b"}))
    attempt("test --ckpt_path x.ckpt", capsys, (0, 2))


def test_a_checkpoint_asks_for_no_more_processes_than_there_are_cores(workspace: Path) -> None:
    from ccd_lightning.cli.trust import embedded_config

    doctored(setting(num_workers=1_000_000))
    config = embedded_config(read_checkpoint(Path("x.ckpt"))[CONFIG_KEY], Path("x.ckpt"))
    assert config["data"]["init_args"]["num_workers"] == os.cpu_count()


# Texts for terminals


def test_names_are_no_commands_to_the_terminal(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "train/good/\x1b]0;title\x07.png").write_bytes(b"no image")
    message = attempt(
        ["fit", "--config", "padim_folder", "--data.root", str(folder), "--model.encoder.weights=null"], capsys
    )
    assert "\\x1b]0;title\\x07.png: cannot be decoded" in message
