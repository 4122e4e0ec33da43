"""Training images per second."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ccd_lightning.callbacks.dashboard import log_interval


class Throughput(Callback):
    """Logs the training images per second over all ranks, loading and augmenting included, validation not.

    Lightning's ThroughputMonitor waits for the device after every batch, and asks the module for its operations.
    Here a mean over some steps makes up for work that the device has not finished when a step ends.

    Args:
        warmup: Steps to leave out, in which workers start and kernels are chosen.
        window: Steps to take the mean over.
    """

    def __init__(self, warmup: int = 5, window: int = 20) -> None:
        self.warmup = warmup
        self.steps: deque[tuple[int, float]] = deque(maxlen=window)  # images and seconds of each
        self.images = 0
        self.left_out = 0
        self.began = 0.0
        self.step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets an earlier training."""
        self.steps.clear()
        self.images, self.left_out, self.step = 0, 0, trainer.global_step
        self.began = time.perf_counter()  # the first epoch of a run that goes on may not begin

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock, which so leaves out what lies between epochs: validation and checkpoints."""
        self.began = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock anew after a validation within an epoch."""
        self.began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts, and logs as often as the trainer logs."""
        self.images += len(next(iter(batch.values()))) * trainer.world_size  # batches are even, give or take an image
        if trainer.global_step == self.step:  # gradients are being accumulated
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
