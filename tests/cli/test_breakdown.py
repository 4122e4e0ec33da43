"""A training whose loss is no longer a number stops, and keeps what it saved before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ccd_lightning.callbacks.checkpointing import StopWhenBroken, TrainingBroken
from ccd_lightning.checkpoints import read_checkpoint
from ccd_lightning.cli import main
from tests.runs import CCD, IGD, PADIM


class Poison(Callback):
    """Makes weights infinite: before a step of the second epoch, or after the last step of it."""

    def __init__(self, after: bool = False) -> None:
        self.after = after

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1 and not self.after:
            self._break(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.current_epoch == 1 and self.after and trainer.is_last_batch:
            self._break(pl_module)

    @staticmethod
    def _break(module: LightningModule) -> None:
        with torch.no_grad():
            next(parameter for parameter in module.parameters() if parameter.requires_grad).fill_(float("inf"))


WORDS = {
    "ccd": [*CCD, "--data.num_workers=0", "--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=1"],
    "igd": IGD,
}


@pytest.mark.fit
@pytest.mark.filterwarnings("ignore:The number of training batches")  # is smaller than the interval, which is the point
@pytest.mark.parametrize("interval", [1, 100])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("model", WORDS)
def test_a_broken_training_stops_and_keeps_its_last_good_checkpoint(
    model: str, after: bool, interval: int, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS[model], "--trainer.logger.init_args.name=broken", f"--trainer.log_every_n_steps={interval}"]
    poison = [f"--trainer.callbacks+={__name__}.Poison", f"--trainer.callbacks.after={str(after).lower()}"]
    assert main([*words, *poison]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ccd: ")][-1]
    run = Path("runs/broken/version_0")
    kept = read_checkpoint(run / "checkpoints/last.ckpt")
    first = kept["global_step"]  # steps of an epoch
    assert (f"since step {first + 1}" if not after else f"After step {2 * first} the model's weights") in told
    assert "runs/broken/version_0/checkpoints/" in told
    assert "is from before" in told
    assert "--model.optimizer.lr" in told
    assert ("--model.warmup_steps" in told) == (model == "ccd")
    assert not (run / "run.json").exists()
    for file in (run / "checkpoints").iterdir():
        content = read_checkpoint(file)
        assert content["epoch"] == 0
        assert all(value.isfinite().all() for name, value in content["state_dict"].items() if "weight" in name)


@pytest.mark.fit
def test_a_detector_without_a_loss_is_not_saved_with_scores_that_are_no_numbers(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ccd_lightning.models.gaussian.PatchGaussian.mahalanobis",
        lambda self, embeddings: embeddings[:, 0] * float("nan"),
    )
    assert main([*PADIM, "--trainer.logger.init_args.name=broken"]) == 2
    assert "the model's weights or scores are no longer numbers" in capsys.readouterr().err
    assert not list(Path("runs/broken").glob("**/*.ckpt"))


def watched(losses: list[float], interval: int, scaler: object = None) -> int:
    """The step at which a training with these losses is stopped; 0 if it is not."""
    callback = StopWhenBroken()
    module: Any = torch.nn.Linear(1, 1)
    module.device, module.hparams = torch.device("cpu"), {}
    trainer: Any = SimpleNamespace(
        log_every_n_steps=interval,
        precision_plugin=SimpleNamespace(scaler=scaler),
        strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision),
        checkpoint_callbacks=[],
        optimizers=[object()],
        precision="32-true",
    )
    callback.on_train_start(trainer, module)
    for step, loss in enumerate(losses, start=1):
        trainer.global_step = step
        try:
            callback.on_train_batch_end(trainer, module, {"loss": torch.tensor(loss)}, None, step - 1)
        except TrainingBroken:
            return step
    return 0


NAN = float("nan")


def test_the_loss_is_read_when_the_trainer_logs() -> None:
    assert watched([1.0, NAN, NAN, NAN, NAN], interval=1) == 2
    assert watched([1.0, NAN, NAN, NAN, NAN], interval=4) == 4
    assert watched([1.0, 2.0, 3.0], interval=1) == 0
    assert watched([float("inf")], interval=1) == 1


def test_overflows_that_a_gradient_scaler_leaves_out_do_not_stop_training() -> None:
    assert watched([1.0, NAN, 1.0, NAN], interval=1, scaler=object()) == 0
