"""A training whose loss is no longer finite stops, and keeps what it saved before."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ccd_lightning.callbacks.breakdown import StopWhenBroken, TrainingBroken
from ccd_lightning.checkpoints import read_checkpoint
from ccd_lightning.cli import main
from tests.runs import CCD, IGD, PADIM

NAN = float("nan")


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


class PoisonGradient(Callback):
    """Makes a gradient infinite in the first step of the second epoch."""

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            gradient = next(one.grad for one in pl_module.parameters() if one.grad is not None)
            gradient.fill_(float("inf"))


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
    message = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ccd: ")][-1]
    run = Path("runs/broken/version_0")
    kept = read_checkpoint(run / "checkpoints/last.ckpt")
    first = kept["global_step"]  # steps of an epoch
    assert (f"since step {first + 1}" if not after else f"After step {2 * first} the model's weights") in message
    assert "runs/broken/version_0/checkpoints/" in message
    assert "is from before" in message
    assert "--model.optimizer.lr" in message
    assert ("--model.warmup_steps" in message) == (model == "ccd")
    assert not (run / "run.json").exists()
    for file in (run / "checkpoints").iterdir():
        content = read_checkpoint(file)
        assert content["epoch"] == 0
        assert all(value.isfinite().all() for name, value in content["state_dict"].items() if "weight" in name)


@pytest.mark.fit
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_a_gradient_that_is_no_number_is_reported_with_its_step_rate_and_images(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS["ccd"], "--trainer.logger.init_args.name=broken", "--trainer.log_every_n_steps=1"]
    assert main([*words, f"--trainer.callbacks+={__name__}.PoisonGradient"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    first = read_checkpoint(Path("runs/broken/version_0/checkpoints/last.ckpt"))["global_step"]
    assert f"The gradient is no longer finite since step {first + 1} (learning rate " in message
    named = re.search(r"images (.*?)\)", message)
    assert named is not None
    assert all(Path(name).is_file() for name in named[1].split(", ")[:3])
    assert named[1].endswith(" 2 more") or named[1].endswith(" 1 more")  # of ten images in two batches
    assert not Path("runs/broken/version_0/run.json").exists()


@pytest.mark.fit
@pytest.mark.parametrize("command", [["test"], ["predict"], ["predict", "--images", "data/synthetic_colonoscopy/test"]])
@pytest.mark.parametrize("name", ["padim_synthetic", "igd_synthetic"])
def test_a_score_that_is_no_number_is_never_written(
    name: str, command: list[str], workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path("runs") / name / "version_0"
    before = {path: path.read_bytes() for path in (run / "predictions.csv", run / "metrics.json")}
    for file in (run / "checkpoints").glob("*.ckpt"):
        content = torch.load(file, weights_only=True)
        state = content["state_dict"]
        state[next(part for part in state if part in ("gaussian.mean", "whole.decoder.first.weight"))].fill_(NAN)
        torch.save(content, file)
    assert main([command[0], "--ckpt_path", str(run), *command[1:]]) == 2
    message = capsys.readouterr().err
    assert "0000.png: its score or map is not finite" in message
    assert "--ckpt_path another checkpoint" in message
    assert {path: path.read_bytes() for path in before} == before
    assert not any("nan" in path.read_text() for path in run.glob("predictions/*/predictions.csv"))


@pytest.mark.fit
@pytest.mark.parametrize("kind", ["PaDiM", "Neighbours", "Mahalanobis", "IGD"])
def test_an_encoder_whose_weights_are_no_numbers_is_named(
    kind: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load("runs/ccd_synthetic/version_0/checkpoints/last.ckpt", weights_only=True)
    content["state_dict"]["encoder.network.bn1.weight"].fill_(NAN)
    torch.save(content, "bad.ckpt")
    words = [*(IGD if kind == "IGD" else PADIM), "--model.encoder.weights=bad.ckpt"]
    assert main([*words, *([] if kind == "IGD" else ["--model", kind, "--model.encoder.weights=bad.ckpt"])]) == 2
    message = capsys.readouterr().err
    assert (
        "ccd: bad.ckpt: its encoder's weights are not finite, because its training diverged. Pretrain another"
        in message
    )


@pytest.mark.fit
def test_a_detector_without_a_loss_is_not_saved_with_scores_that_are_no_numbers(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ccd_lightning.models.gaussian.PatchGaussian.mahalanobis",
        lambda self, embeddings: embeddings[:, 0] * float("nan"),
    )
    assert main([*PADIM, "--trainer.logger.init_args.name=broken"]) == 2
    assert "the model's weights or scores are no longer finite" in capsys.readouterr().err
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
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}])],
        global_step=0,
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


def test_the_loss_is_read_when_the_trainer_logs() -> None:
    assert watched([1.0, NAN, NAN, NAN, NAN], interval=1) == 2
    assert watched([1.0, NAN, NAN, NAN, NAN], interval=4) == 4
    assert watched([1.0, 2.0, 3.0], interval=1) == 0
    assert watched([float("inf")], interval=1) == 1


def test_overflows_that_a_gradient_scaler_leaves_out_do_not_stop_training() -> None:
    assert watched([1.0, NAN, 1.0, NAN], interval=1, scaler=object()) == 0
