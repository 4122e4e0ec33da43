"""Full disks, folders that go, processes that are killed, damaged caches: they are reported, and nothing is lost."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import get_worker_info

from ccd_lightning.cli import main
from ccd_lightning.cli.failures import failure
from ccd_lightning.data.dataset import AnomalyDataset, EpochIndex
from ccd_lightning.data.images import load_images
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.writing import atomic_write, beside, naming, remove_leftovers, scratch
from tests import processes
from tests.processes import RANKS
from tests.reliability.trials import attempt
from tests.runs import CCD, DATA, PADIM, VIEWS

RUN = "runs/padim_synthetic/version_0"
ROOT = "data/synthetic_colonoscopy"
OFTEN = "--trainer.check_val_every_n_epoch=1"  # after which a checkpoint is saved
NOBODY = 2**22 + 1  # more than the number of any process
FULL: dict[str, tuple[list[str], str]] = {  # the command, and the file or folder that it names
    "test": (["test", "--ckpt_path", RUN], RUN),
    "predict images": (["predict", "--ckpt_path", RUN, "--images", f"{ROOT}/test/good", "--output", "out"], "out"),
    "check": (["data", "check", "--root", ROOT, "--output", "out"], "out/findings.csv"),
    "prepare": (["data", "prepare", "--root", ROOT, "--output", "out.csv"], "out.csv"),
    "prepare with a copy": (["data", "prepare", "--root", ROOT, "--output", "out.csv", "--copy", "out"], "out"),
    "synthesize": (["data", "synthesize", "--root", "out", "--size", "32", "--train", "3"], "out"),
    "compare": (["compare", RUN, "runs/igd_synthetic", "--output", "out.png"], "out.png"),
}


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """Lets no file grow beyond some bytes, as a quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", FULL)
def test_a_full_disk_is_reported_with_the_place(name: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, place = FULL[name]
    before = {path for path in Path().rglob("*") if "events.out" not in path.name}
    with small_disk(0 if words[0] == "data" else 6000):  # the config of a command, in the system's folder, fits
        message = attempt(words, capsys)
    assert f"ccd: {place}" in message
    assert "files written before are complete. Free some space" in message
    left = {path for path in Path().rglob("*") if "events.out" not in path.name} - before
    assert not [path for path in left if "partial" in path.name]


@pytest.mark.export
@pytest.mark.parametrize(("form", "file"), [("torch", "out.pt2"), ("onnx", "out.onnx")])
def test_a_full_disk_ends_no_process_that_exports(
    form: str, file: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(10_000):
        message = attempt(["export", "--ckpt_path", RUN, "--format", form, "--output", file], capsys)
    assert f"ccd: {file}: " in message
    assert not list(Path().glob(f"*{file}*"))


@pytest.mark.fit
@pytest.mark.parametrize(
    "words", [[*CCD, "--data.num_workers=0"], [*PADIM, "--model.encoder.weights", "null"]], ids=["ccd", "padim"]
)
@pytest.mark.parametrize("size", [0, 20_000])
def test_a_fit_on_a_full_disk_is_reported(
    words: list[str], size: int, workspace: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.print", lambda *a, **k: None)  # whose file would be too large as well
    with small_disk(size):
        code = main(words)
    printed = capfd.readouterr()
    assert code == 2
    assert "Traceback" not in printed.err


@pytest.mark.fit
def test_a_fit_whose_disk_fills_up_can_be_resumed(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, save = [0], torch.save

    def full(content: object, target: Any) -> None:
        saved[0] += 1
        if saved[0] > 2:  # best.ckpt and last.ckpt of one epoch
            raise OSError(28, "No space left on device")
        save(content, target)

    words = [*CCD, "--trainer.max_epochs=4", OFTEN, "--trainer.logger.init_args.name=mine"]
    with monkeypatch.context() as patch:
        patch.setattr("torch.save", full)
        message = attempt(words, capsys)
    assert "ccd: runs/mine/version_0/checkpoints/" in message or "/runs/mine/version_0/checkpoints/" in message
    assert (
        "complete. Free some space, or write to another disk, then resume with: ccd fit --config runs/mine/version_0"
        in message
    )
    attempt([*words, "--ckpt_path", "last"], capsys, (0,))


def test_errors_without_a_name_get_that_of_the_file(tmp_path: Path) -> None:
    for error in (
        OSError(28, "x"),
        OSError(28, "x", str(beside(tmp_path / "a"))),
        OSError(28, "x", str(tmp_path / "b")),
    ):
        with pytest.raises(OSError, match=r"\[Errno 28\]") as caught, naming(tmp_path / "a"):
            raise error
        assert caught.value.filename == str(
            tmp_path / ("b" if error.filename and error.filename.endswith("b") else "a")
        )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("Unable to allocate 37.3 GiB for an array"), "not enough memory (Unable to allocate 37.3 GiB"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "enough memory"),
        (RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"), "loads images was killed"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1"), "process of this"),
        (OSError(28, "No space left on device"), "No space left on device; files written before are complete"),
        (OSError(5, "no"), None),
        (RuntimeError("a defect"), None),
    ],
)
def test_failures_of_the_machine_are_recognised(error: Exception, message: str | None) -> None:
    found = failure(error, "Resume with: ccd fit")
    assert (
        (found is None)
        if message is None
        else (message in str(found) and str(found).endswith(", then resume with: ccd fit"))
    )


# What killed processes leave


def test_files_left_by_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / ("x" * 251 + ".csv")
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: NOBODY)
        (ours := beside(target)).write_text("half of")
        patch.setattr("ccd_lightning.writing._machine", lambda: "another")
        (fresh := beside(target)).write_text("half of")
        patch.setattr("os.getpid", lambda: NOBODY + 1)
        (old := beside(target)).mkdir()
        os.utime(old, (time.time() - 1e6,) * 2)
    (running := target.with_name(ours.name.replace(str(NOBODY), str(os.getppid())))).touch()
    with atomic_write(target) as partial:
        partial.write_text("whole")
    assert set(tmp_path.iterdir()) == {target, fresh, running}
    remove_leftovers(target)
    assert target.read_text() == "whole"


def test_an_incomplete_folder_is_removed(tmp_path: Path) -> None:
    def break_off() -> None:
        with scratch(tmp_path / "set") as partial:
            (partial / "train").mkdir(parents=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert not list(tmp_path.iterdir())


@pytest.mark.fit
def test_checkpoints_do_not_pass_through_the_systems_folder(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    attempt([*PADIM, "--model.encoder.weights", "null", "--trainer.logger.init_args.name=mine"], capsys, (0,))
    assert Path("runs/mine/version_0/checkpoints/best.ckpt").is_file()


# Caches


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def header(file: Path) -> None:
    stored = np.load(file)
    with file.open("wb") as stream:
        np.save(stream, stored.astype(np.float32))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("none"),
    "other header": header,
    "other shape": lambda file: np.save(file, np.load(file)[:-1]),
    "objects": lambda file: np.save(file, np.array([{}]), allow_pickle=True),
    "pipe": pipe,
}


@pytest.mark.parametrize("which", ["pixels", "placements"])
@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_cache_is_rebuilt(how: str, which: str, folder: Path, tmp_path: Path) -> None:
    paths, preprocessing = sorted(folder.glob("train/good/*")), Preprocessing(32)
    before = load_images(paths, preprocessing, tmp_path)
    small = next(tmp_path.glob("*.placements.npy"))
    file = small if which == "placements" else next(path for path in tmp_path.glob("*.npy") if path != small)
    expected = np.array(before.pixels)
    del before
    gc.collect()
    DAMAGE[how](file)
    again = load_images(paths, preprocessing, tmp_path)
    assert np.array_equal(again.pixels, expected)
    assert not list(tmp_path.glob(".*"))


# Processes that are killed


@pytest.mark.fit
def test_a_killed_data_worker_is_reported(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = AnomalyDataset.__getitem__

    def killed(self: AnomalyDataset, key: EpochIndex) -> dict[str, Any]:
        if key.epoch == 2 and get_worker_info():
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(self, key)

    monkeypatch.setattr(AnomalyDataset, "__getitem__", killed)
    words = [*CCD, "--trainer.max_epochs=4", OFTEN, "--data.num_workers=1", "--trainer.logger.init_args.name=mine"]
    message = attempt(words, capsys)
    assert "A process that loads images was killed" in message
    assert "resume with: ccd fit --config runs/mine/version_0/config.yaml --ckpt_path runs/mine/version_0" in message


class MoveAway(Callback):
    """Moves the run's folder away in the second epoch. Nothing is deleted, whatever the folder may be."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1:
            Path("runs/mine/version_0").rename("runs/mine/moved")


@pytest.mark.fit
def test_a_run_whose_folder_vanishes_is_reported(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*CCD, "--trainer.max_epochs=3", OFTEN, "--trainer.logger.init_args.name=mine"]
    assert "runs/mine/version_0" in attempt([*words, f"--trainer.callbacks+={__name__}.MoveAway"], capsys)


class Kill(Callback):
    """Kills the second process of a training."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 2 and trainer.global_rank == 1:
            Path("killed").write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.fit
@pytest.mark.process
def test_a_killed_rank_is_reported_within_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["fit", "--config", "ccd_synthetic", *DATA, "--data.batch_size=2", *VIEWS, "--trainer.max_epochs=4", OFTEN]
    done = subprocess.run(
        processes.command(*words, *RANKS, f"--trainer.callbacks+={__name__}.Kill"),
        env=processes.ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert time.time() < float(Path("killed").read_text()) + 60
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "process of this training" in done.stderr
    assert "resume with: ccd fit --config runs/ccd_synthetic/version_0/config.yaml" in done.stderr


# Records of other runs, the clock, memory


@pytest.mark.parametrize("content", ["", "{}", "[]", "{", '{"finished": 5}', "[" * 100_000, "\udcff"])
def test_a_damaged_record_of_another_run_stops_nothing(
    content: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("runs/padim_synthetic/version_0", "runs/other/version_0")
    Path("runs/other/version_0/run.json").write_bytes(content.encode(errors="surrogateescape"))
    assert "runs/other" not in attempt("validate", capsys, (0,)).partition("\n\n")[0].splitlines()[0]


def test_an_empty_path_is_refused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["test", "--ckpt_path", ""], ["predict", "--ckpt_path="], ["export", "--ckpt_path", ""]):
        assert "--ckpt_path" in attempt(words, capsys)


def test_a_command_frees_its_memory(workspace: Path) -> None:
    def held() -> int:
        found = [one for one in gc.get_objects() if type(one) is torch.Tensor]
        return sum(tensor.numel() for tensor in found if tensor.device.type == "cpu")

    words = ["predict", "--ckpt_path", RUN]
    assert main(words) == 0
    gc.collect()
    gc.disable()
    try:
        before = held()
        for _ in range(2):
            assert main(words) == 0
        assert held() < before + 10_000  # a detector has some million
    finally:
        gc.enable()
