"""Measures training images per second."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ccd_lightning.callbacks.dashboard import log_interval


class Throughput(Callback):
    """Logs the training images per second over all ranks, including loading and augmentation but not validation.

    Lightning's ThroughputMonitor synchronises the device after every batch, and requires the module's operation count.
    Here, the mean over several steps compensates for work that the device has not finished at the end of a step.

    Args:
        warmup: Number of steps to exclude, in which workers start and kernels are selected.
        window: Number of steps over which to average.
    """

    def __init__(self, warmup: int = 5, window: int = 20) -> None:
        self.warmup = warmup
        self.steps: deque[tuple[int, float]] = deque(maxlen=window)  # images and seconds per step
        self.images = 0
        self.left_out = 0
        self.began = 0.0
        self.step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resets the measurements of an earlier training."""
        self.steps.clear()
        self.images, self.left_out, self.step = 0, 0, trainer.global_step
        self.began = time.perf_counter()  # in a resumed run, `on_train_epoch_start` may not be called first

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restarts the clock, to exclude validation and checkpoints between epochs."""
        self.began = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restarts the clock after a validation within an epoch."""
        self.began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts images and logs the throughput at the trainer's log interval."""
        self.images += len(next(iter(batch.values()))) * trainer.world_size  # ranks differ by at most an image
        if trainer.global_step == self.step:  # no new step if gradients are accumulated
            return
        self.step, now = trainer.global_step, time.perf_counter()
        if self.left_out < self.warmup:
            self.left_out += 1
        else:
            self.steps.append((self.images, now - self.began))
        self.images, self.began = 0, now
        interval = log_interval(trainer)
        if self.steps and interval and self.step % interval == 0:
            images, seconds = (sum(part) for part in zip(*self.steps, strict=True))
            for logger in trainer.loggers:
                logger.log_metrics({"train/images_per_second": images / seconds}, step=self.step)
