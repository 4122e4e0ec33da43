"""Atomic checkpoints, checkpoints on SIGTERM, and a validation at the end of each fit."""

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
    """Writes checkpoints atomically: a run that is killed while saving keeps the previous checkpoint.

    The checkpoint is written next to the file and renamed. Lightning's own plugin writes to memory, then to the
    system's temporary folder, and then moves the file, which is a copy if the folder is on another disk. Files are
    removed only from folders that this plugin wrote to, because a resumed checkpoint, possibly from someone else, names
    the files to remove.
    """

    def __init__(self) -> None:
        super().__init__()
        self._written = set[str]()  # folders, local or remote

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes a checkpoint; for a URL instead of a path, it uses Lightning's method."""
        self._written.add(_folder(path))
        if _is_remote(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as partial, partial.open("wb") as stream:
            torch.save(checkpoint, stream)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes a checkpoint file from a folder to which a checkpoint was written; other files are kept."""
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
    """Saves last.ckpt and stops when any rank receives SIGTERM, which clusters send to end a job.

    Lightning's own handler communicates with other ranks inside the signal handler, at any point of their execution,
    and saves nothing.
    """

    def __init__(self) -> None:
        self.asked = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replaces Lightning's signal handler; Lightning restores the original one at the end."""
        self.asked = False
        if threading.current_thread() is threading.main_thread():  # only the main thread can handle signals
            signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: Any) -> None:
        self.asked = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops between two optimiser steps; after the last one of an epoch, the epoch is completed first."""
        if not trainer.is_last_batch and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._stop_if_asked(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops between two epochs."""
        self._stop_if_asked(trainer, pl_module)

    def _stop_if_asked(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.strategy.reduce_boolean_decision(self.asked, all=False):
            return
        folders = [kept.dirpath for kept in trainer.checkpoint_callbacks if isinstance(kept, ModelCheckpoint)]
        if folders and folders[0] and pl_module.automatic_optimization:  # others have unsaved sums
            trainer.save_checkpoint(f"{folders[0]}/last.ckpt")
        raise Terminated


class ValidateLast(Callback):
    """Makes every fit end with a validation, and a checkpoint after it, whatever the validation interval."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Sets the interval to 1 in the last epoch, which a resumed run may enter in the middle."""
        if trainer.check_val_every_n_epoch and trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Validates after the last step if `max_steps` is set, which may be in the middle of an epoch."""
        if trainer.check_val_every_n_epoch and trainer.global_step == trainer.max_steps:
            trainer.check_val_every_n_epoch = 1
            trainer.should_stop = True  # otherwise Lightning leaves the epoch without a validation
