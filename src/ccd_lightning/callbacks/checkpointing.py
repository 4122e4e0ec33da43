"""Runs that survive: checkpoints that are whole, and saved on SIGTERM."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from ccd_lightning.errors import Terminated
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
