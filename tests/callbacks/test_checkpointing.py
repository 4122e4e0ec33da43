"""What is saved, and how, when a run is asked to stop."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from ccd_lightning.callbacks.checkpointing import AtomicCheckpointIO, SaveWhenTerminated
from ccd_lightning.errors import Terminated
from ccd_lightning.writing import beside


def stop(folder: Path, automatic: bool, asked: bool = True, last: bool = False, accumulate: int = 1) -> list[str]:
    """The files that a run is told to save when the first batch of an epoch ends; "stopped" when it stops."""
    saved: list[str] = []
    trainer: Any = SimpleNamespace(
        is_last_batch=last,
        accumulate_grad_batches=accumulate,
        strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision),
        checkpoint_callbacks=[ModelCheckpoint(folder)],
        save_checkpoint=saved.append,
    )
    module: Any = SimpleNamespace(automatic_optimization=automatic)
    callback = SaveWhenTerminated()
    callback.asked = asked
    try:
        callback.on_train_batch_end(trainer, module, None, None, 0)
    except Terminated:
        saved.append("stopped")
    return saved


def test_a_run_saves_and_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    assert stop(tmp_path, automatic=True) == [f"{tmp_path}/last.ckpt", "stopped"]
    assert stop(tmp_path, automatic=True, asked=False) == []


def test_a_detector_stops_without_saving_half_of_its_sums(tmp_path: Path) -> None:
    assert stop(tmp_path, automatic=False) == ["stopped"]


@pytest.mark.parametrize("change", [{"last": True}, {"accumulate": 2}])
def test_a_run_goes_on_to_the_end_of_a_step_and_of_an_epoch(change: dict[str, Any], tmp_path: Path) -> None:
    assert stop(tmp_path, automatic=True, **change) == []


def test_a_checkpoint_is_whole_or_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "last.ckpt"
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"step": 1}, file)

    def break_off(*_: Any, **__: Any) -> None:
        gone = 2**22 + 1  # more than the number of any process
        with monkeypatch.context() as other:
            other.setattr("os.getpid", lambda: gone)
            beside(file).write_bytes(b"half of")  # as a killed process leaves it
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("torch.save", break_off)
        with pytest.raises(KeyboardInterrupt):
            writer.save_checkpoint({"step": 2}, file)
    assert torch.load(file) == {"step": 1}
    writer.save_checkpoint({"step": 2}, file)
    assert torch.load(file) == {"step": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_only_checkpoints_in_folders_written_to_are_removed(tmp_path: Path) -> None:
    file, other = tmp_path / "run/old.ckpt", tmp_path / "other.ckpt"
    writer = AtomicCheckpointIO()
    for path in (file, other):
        path.parent.mkdir(exist_ok=True)
        path.touch()
        writer.remove_checkpoint(path)
        assert path.exists()  # nothing was written yet
    writer.save_checkpoint({"step": 1}, tmp_path / "run/new.ckpt")
    for kept in (other, tmp_path / "run/../other.ckpt", f"local://{other}", tmp_path / "run", tmp_path / "run/x.txt"):
        writer.remove_checkpoint(kept)
    assert other.exists()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["new.ckpt", "old.ckpt"]
    writer.remove_checkpoint(str(file))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["new.ckpt"]
