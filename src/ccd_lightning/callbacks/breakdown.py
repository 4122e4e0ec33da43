"""Stops training when the loss or gradient is no longer finite, and reports the step and the images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from ccd_lightning.callbacks.dashboard import log_interval
from ccd_lightning.errors import UserError
from ccd_lightning.writing import short_text

SHOWN = 3  # maximum number of images in a message
KEPT = 1000  # maximum number of steps for which images are stored


class _Shown(NamedTuple):
    """Learning rates of a step, one per optimiser, and the files of its images."""

    rates: list[float]
    images: list[str]


class TrainingBroken(UserError):
    """Raised on all ranks if the loss, gradient or weights are no longer finite."""


class StopWhenBroken(Callback):
    """Stops training if the loss or gradient is not finite, before bad weights replace good ones in a checkpoint.

    The loss and the gradient norm are checked on the device, without synchronising a GPU. The results are read when the
    trainer logs, before a validation and before a checkpoint is written.
    """

    def __init__(self) -> None:
        self.loss_since = torch.tensor(
            -1
        )  # first of the current run of steps with a loss that is not finite; -1 if none
        self.gradient_since = torch.tensor(-1)  # the same for the gradient norm
        self._shown: dict[int, _Shown] = {}  # by step, since the device was last read
        self._done = 0  # global step after the last batch

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resets the state of an earlier training."""
        self.loss_since, self.gradient_since = (torch.tensor(-1, device=pl_module.device) for _ in range(2))
        self._shown.clear()
        self._done = trainer.global_step

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Records a gradient norm that is not finite, before the optimiser step."""
        gradients = [one.grad for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        if gradients:
            norm = torch.nn.utils.get_total_norm(gradients)
            first = torch.where(self.gradient_since < 0, trainer.global_step + 1, self.gradient_since)
            self.gradient_since = torch.where(norm.isfinite().to(self.gradient_since.device), -1, first)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Records a loss that is not finite; detectors without gradient training have no loss."""
        step = trainer.global_step + (trainer.global_step == self._done)  # the next one if gradients accumulate
        self._done = trainer.global_step
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            first = torch.where(self.loss_since < 0, step, self.loss_since)
            self.loss_since = torch.where(loss.detach().isfinite().all(), -1, first)
        rates = [float(group["lr"]) for one in trainer.optimizers for group in one.param_groups[:1]]
        if len(self._shown) >= KEPT:  # without logging, the device is not read and steps pile up
            self._shown.pop(next(iter(self._shown)))
        self._shown.setdefault(step, _Shown(rates, []))[1].extend(_names(batch))
        interval = log_interval(trainer)
        if interval and trainer.global_step % interval == 0:
            self._check(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks before a validation, to avoid a useless one."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._check(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks runs that save no checkpoints."""
        self._check(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Checks before weights are saved, which may not be finite after the last step."""
        self._check(trainer, pl_module, before_saving=True)

    def _check(self, trainer: Trainer, pl_module: LightningModule, before_saving: bool = False) -> None:
        loss_since, gradient_since = torch.stack([self.loss_since, self.gradient_since]).tolist()
        first = min((step for step in (loss_since, gradient_since) if step >= 0), default=-1)
        # A gradient scaler skips steps with overflowing gradients, so the weights stay intact.
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        broken = first >= 0 and not scaled
        if not broken and (before_saving or first >= 0):
            broken = not _sound(pl_module)
        if trainer.strategy.reduce_boolean_decision(broken, all=False):
            what = "loss" if loss_since == first else "gradient"
            raise TrainingBroken(_explain(trainer, pl_module, first, what, self._shown.get(first)))
        self._shown = {step: shown for step, shown in self._shown.items() if 0 <= first <= step}


def _sound(module: LightningModule) -> bool:
    """Returns whether all weights, running statistics and held-out scores are finite."""
    kept = ("running_mean", "running_var", "normal_scores")
    tensors = [*module.parameters(), *(buffer for name, buffer in module.named_buffers() if name.endswith(kept))]
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all()) if tensors else True


def _names(batch: Any) -> list[str]:
    """Returns the image files of a batch, or [] if it does not contain them."""
    found = batch.get("path") if isinstance(batch, Mapping) else None
    return [str(path) for path in found] if isinstance(found, list | tuple) else []


def _explain(trainer: Trainer, module: LightningModule, first: int, what: str, shown: _Shown | None) -> str:
    """Returns an error message with the cause and the fix.

    Args:
        trainer: Trainer of the fit.
        module: Module that is trained.
        first: First step that was not finite; -1 if only weights are not finite.
        what: What was not finite at that step, "loss" or "gradient".
        shown: Learning rates and images of that step.
    """
    message = f"After step {trainer.global_step} the model's weights or scores are no longer finite"
    if first >= 0:
        message = f"The {what} is no longer finite since step {first}{_circumstances(shown)}"
    trained = any(optimizer.param_groups for optimizer in trainer.optimizers)  # Lightning's dummy optimiser has none
    ways = ["a lower learning rate (--model.optimizer.lr)"] * trained
    ways += ["a longer warm-up (--model.warmup_steps)"] * ("warmup_steps" in module.hparams)
    ways += ["--trainer.gradient_clip_val 1"] * trained
    ways += ["--trainer.precision 32-true"] * (not str(trainer.precision).startswith(("32", "64")))
    ways = ways or ["another encoder (--model.encoder.weights)"]
    advice = f"Start a new run with {', '.join(ways[:-1])}{' or ' * (len(ways) > 1)}{ways[-1]}."
    folders = [Path(str(found)) for one in trainer.checkpoint_callbacks if (found := getattr(one, "dirpath", None))]
    kept = max((file for folder in folders for file in folder.glob("*.ckpt")), key=os.path.getmtime, default=None)
    before = f"; {os.path.relpath(kept)} is from before" if kept else ""
    return f"{message}, so training was stopped{before}. {advice}"


def _circumstances(shown: _Shown | None) -> str:
    if shown is None:
        return ""
    rates = [f"learning rate {', '.join(f'{rate:.3g}' for rate in shown.rates)}"] * bool(shown.rates)
    names = [short_text(os.path.relpath(path)) for path in shown.images[:SHOWN]]
    more = [f"{len(shown.images) - SHOWN} more"] * (len(shown.images) > SHOWN)
    images = [f"images {', '.join(names + more)}"] * bool(names)
    return f" ({'; '.join(rates + images)})" if rates or images else ""
