"""Trainings that break down: stopped with where and on what, before their weights replace good ones."""

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

SHOWN = 3  # images that a message names
KEPT = 1000  # steps whose images are remembered


class _Shown(NamedTuple):
    """What a step went by: learning rates, one per optimiser, and the files of its images."""

    rates: list[float]
    images: list[str]


class TrainingBroken(UserError):
    """A training whose loss, gradient or weights are no longer numbers; raised on all ranks."""


class StopWhenBroken(Callback):
    """Stops a training whose loss or gradient is no number, before its weights replace good ones in a checkpoint.

    The loss and the norm of the gradient stay on the device, where a GPU need not be waited for. They are read when the
    trainer logs, before a validation and before a checkpoint is written.
    """

    def __init__(self) -> None:
        self.since = torch.tensor(-1)  # first step of those in a row, up to now, whose loss is no number; -1 if none
        self.steep = torch.tensor(-1)  # the same of the norm of the gradient
        self._shown: dict[int, _Shown] = {}  # by the step, since what is on the device was read
        self._done = 0  # steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets an earlier training."""
        self.since, self.steep = (torch.tensor(-1, device=pl_module.device) for _ in range(2))
        self._shown.clear()
        self._done = trainer.global_step

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Notes a gradient whose norm is no number, before weights follow it."""
        gradients = [one.grad for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        if gradients:
            norm = torch.nn.utils.get_total_norm(gradients)
            first = torch.where(self.steep < 0, trainer.global_step + 1, self.steep)
            self.steep = torch.where(norm.isfinite().to(self.steep.device), -1, first)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes a loss that is no number; detectors that are not trained by gradients have none."""
        step = trainer.global_step + (trainer.global_step == self._done)  # which gradients may be summed up for
        self._done = trainer.global_step
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            first = torch.where(self.since < 0, step, self.since)
            self.since = torch.where(loss.detach().isfinite().all(), -1, first)
        rates = [float(group["lr"]) for one in trainer.optimizers for group in one.param_groups[:1]]
        if len(self._shown) >= KEPT:  # where nothing is logged, and so nothing is read
            self._shown.pop(next(iter(self._shown)))
        self._shown.setdefault(step, _Shown(rates, []))[1].extend(_names(batch))
        interval = log_interval(trainer)
        if interval and trainer.global_step % interval == 0:
            self._check(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops before the time for a validation is spent."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._check(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops runs that save nothing."""
        self._check(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuses to save weights that are not numbers, as they may be after the last step."""
        self._check(trainer, pl_module, before_saving=True)

    def _check(self, trainer: Trainer, pl_module: LightningModule, before_saving: bool = False) -> None:
        since, steep = torch.stack([self.since, self.steep]).tolist()
        first = min((step for step in (since, steep) if step >= 0), default=-1)
        # A gradient scaler leaves out steps whose gradients overflow, and the weights as they were.
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        broken = first >= 0 and not scaled
        if not broken and (before_saving or first >= 0):
            broken = not _sound(pl_module)
        if trainer.strategy.reduce_boolean_decision(broken, all=False):
            what = "loss" if since == first else "gradient"
            raise TrainingBroken(_explain(trainer, pl_module, first, what, self._shown.get(first)))
        self._shown = {step: shown for step, shown in self._shown.items() if 0 <= first <= step}


def _sound(module: LightningModule) -> bool:
    """Whether all weights, running statistics and held-out scores are numbers."""
    kept = ("running_mean", "running_var", "normal_scores")
    tensors = [*module.parameters(), *(buffer for name, buffer in module.named_buffers() if name.endswith(kept))]
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all()) if tensors else True


def _names(batch: Any) -> list[str]:
    """The files of a batch's images, if it names them."""
    found = batch.get("path") if isinstance(batch, Mapping) else None
    return [str(path) for path in found] if isinstance(found, list | tuple) else []


def _explain(trainer: Trainer, module: LightningModule, first: int, what: str, shown: _Shown | None) -> str:
    """What has happened, and what to do.

    Args:
        trainer: Of the fit.
        module: Which is trained.
        first: The step at which it happened; -1 where weights alone are no numbers.
        what: What was no number at that step, the loss or the gradient.
        shown: Learning rates and images of that step.
    """
    message = f"After step {trainer.global_step} the model's weights or scores are no longer numbers"
    if first >= 0:
        message = f"The {what} is no longer a number since step {first}{_circumstances(shown)}"
    ways = ["a lower learning rate (--model.optimizer.lr)"] * bool(trainer.optimizers)
    ways += ["a longer warm-up (--model.warmup_steps)"] * ("warmup_steps" in module.hparams)
    ways += ["--trainer.gradient_clip_val 1"] * bool(trainer.optimizers)
    ways += ["--trainer.precision 32-true"] * (not str(trainer.precision).startswith(("32", "64")))
    ways = ways or ["another encoder (--model.encoder.weights)"]
    way_out = f"Start a new run with {', '.join(ways[:-1])}{' or ' * (len(ways) > 1)}{ways[-1]}."
    folders = [Path(str(found)) for one in trainer.checkpoint_callbacks if (found := getattr(one, "dirpath", None))]
    kept = max((file for folder in folders for file in folder.glob("*.ckpt")), key=os.path.getmtime, default=None)
    before = f"; {os.path.relpath(kept)} is from before" if kept else ""
    return f"{message}, so training was stopped{before}. {way_out}"


def _circumstances(shown: _Shown | None) -> str:
    if shown is None:
        return ""
    rates = [f"learning rate {', '.join(f'{rate:.3g}' for rate in shown.rates)}"] * bool(shown.rates)
    names = [short_text(os.path.relpath(path)) for path in shown.images[:SHOWN]]
    more = [f"{len(shown.images) - SHOWN} more"] * (len(shown.images) > SHOWN)
    images = [f"images {', '.join(names + more)}"] * bool(names)
    return f" ({'; '.join(rates + images)})" if rates or images else ""
