"""Runs that survive: checkpoints that are whole, saved on SIGTERM, and never replaced by broken weights."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor

from ccd_lightning.callbacks.dashboard import log_interval
from ccd_lightning.errors import Terminated, UserError
from ccd_lightning.writing import atomic_write


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the file and renames, so that a run killed while it saves keeps the checkpoint before.

    Lightning's own writes into memory, from there into the system's temporary folder, and moves, which copies where
    that is another disk. Only files in folders that it wrote to are removed: a resumed checkpoint, perhaps someone
    else's, says which to remove.
    """

    def __init__(self) -> None:
        super().__init__()
        self._written = set[str]()  # folders, local or remote

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes a checkpoint; to an address instead of a path, as Lightning does."""
        self._written.add(_folder(path))
        if _is_remote(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as partial, partial.open("wb") as stream:
            torch.save(checkpoint, stream)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes a checkpoint file from a folder that a checkpoint was written to; anything else stays."""
        if _folder(path) not in self._written or not str(path).endswith(".ckpt"):
            return
        if _is_remote(path):
            super().remove_checkpoint(path)
        elif Path(path).is_file():
            Path(path).unlink()


def _is_remote(path: str | Path) -> bool:
    return "://" in str(path) or "::" in str(path)


def _folder(path: str | Path) -> str:
    return str(path).rpartition("/")[0] if _is_remote(path) else str(Path(path).parent.resolve())


class SaveWhenTerminated(Callback):
    """Writes last.ckpt and stops when any rank has got a SIGTERM, with which clusters end a job.

    Lightning's own handler talks to other ranks from within the signal, wherever they are, and saves nothing.
    """

    def __init__(self) -> None:
        self.asked = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the signal over from Lightning, which puts back what was there before when it ends."""
        self.asked = False
        if threading.current_thread() is threading.main_thread():  # only there are signals to be had
            signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: Any) -> None:
        self.asked = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops between two optimiser steps; an epoch's last one is still followed by what belongs to the epoch."""
        if not trainer.is_last_batch and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._stop_if_asked(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops between two epochs."""
        self._stop_if_asked(trainer, pl_module)

    def _stop_if_asked(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.strategy.reduce_boolean_decision(self.asked, all=False):
            return
        folders = [kept.dirpath for kept in trainer.checkpoint_callbacks if isinstance(kept, ModelCheckpoint)]
        if folders and folders[0] and pl_module.automatic_optimization:  # others keep sums that no checkpoint holds
            trainer.save_checkpoint(f"{folders[0]}/last.ckpt")
        raise Terminated


class TrainingBroken(UserError):
    """A training whose loss or weights are no longer numbers; raised on all ranks."""


class StopWhenBroken(Callback):
    """Stops a training whose loss is no longer a number, before its weights replace good ones in a checkpoint.

    The loss stays on the device, where a GPU need not be waited for. It is read when the trainer logs, before a
    validation and before a checkpoint is written.
    """

    def __init__(self) -> None:
        self.since = torch.tensor(-1)  # first step of those in a row, up to now, whose loss is no number; -1 if none

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets an earlier training."""
        self.since = torch.tensor(-1, device=pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes a loss that is no number; detectors that are not trained by gradients have none."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            first = torch.where(self.since < 0, trainer.global_step, self.since)
            self.since = torch.where(loss.detach().isfinite().all(), -1, first)
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
        since = int(self.since)
        # A gradient scaler leaves out steps whose gradients overflow, and the weights as they were.
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        broken = since >= 0 and not scaled
        if not broken and (before_saving or since >= 0):
            broken = not _sound(pl_module)
        if trainer.strategy.reduce_boolean_decision(broken, all=False):
            raise TrainingBroken(_explain(trainer, pl_module, since))


def _sound(module: LightningModule) -> bool:
    """Whether all weights, running statistics and held-out scores are numbers."""
    state = module.state_dict()
    names = {name for name, _ in module.named_parameters()}
    names |= {name for name in state if name.endswith(("running_mean", "running_var", "normal_scores"))}
    return bool(torch.stack([state[name].isfinite().all() for name in names]).all()) if names else True


def _explain(trainer: Trainer, module: LightningModule, since: int) -> str:
    what = (
        f"The loss is no longer a number since step {since}"
        if since >= 0
        else (f"After step {trainer.global_step} the model's weights or scores are no longer numbers")
    )
    ways = ["a lower learning rate (--model.optimizer.lr)"] * bool(trainer.optimizers)
    ways += ["a longer warm-up (--model.warmup_steps)"] * ("warmup_steps" in module.hparams)
    ways += ["--trainer.gradient_clip_val 1"] * bool(trainer.optimizers)
    ways += ["--trainer.precision 32-true"] * (not str(trainer.precision).startswith(("32", "64")))
    ways = ways or ["another encoder (--model.encoder.weights)"]
    way_out = f"Start a new run with {', '.join(ways[:-1])}{' or ' * (len(ways) > 1)}{ways[-1]}."
    folders = [Path(str(found)) for one in trainer.checkpoint_callbacks if (found := getattr(one, "dirpath", None))]
    kept = max((file for folder in folders for file in folder.glob("*.ckpt")), key=os.path.getmtime, default=None)
    before = f"; {os.path.relpath(kept)} is from before" if kept else ""
    return f"{what}, so training was stopped{before}. {way_out}"


class ValidateLast(Callback):
    """Makes a fit end with a validation, after which it is saved, whatever the interval."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Shortens the interval in the last epoch, which a run that goes on may enter in the middle."""
        if trainer.check_val_every_n_epoch and trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Validates after the last step, where steps are counted: it may be in the middle of an epoch."""
        if trainer.check_val_every_n_epoch and trainer.global_step == trainer.max_steps:
            trainer.check_val_every_n_epoch = 1
            trainer.should_stop = True  # without which Lightning leaves the epoch before it validates
