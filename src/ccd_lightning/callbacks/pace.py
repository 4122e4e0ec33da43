"""Estimates the duration of a fit, and sets suitable intervals for logging and validation."""

from __future__ import annotations

import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

READINGS = 10_000  # values per curve: with 18 curves and 100 bytes per value, an event file of 18 MB
VALIDATIONS = 4  # minimum number, if the length of the fit is given in steps
WARMUP = 2  # steps in which workers start and kernels are selected
STEPS, SECONDS = 10, 20.0  # length of the measurement, whichever comes first


class Pace(Callback):
    """Prints once, on the first rank, how long the fit will take, estimated from its first steps.

    It also logs less often in long fits, validates more often in fits of few epochs, and derives the number of epochs
    if the length of the fit is given in steps.

    Attributes:
        thin: Whether to set the trainer's `log_every_n_steps`, because the user has not set it.
    """

    def __init__(self) -> None:
        self.thin = False
        self._first = self._step = 0
        self._began = self._paused = 0.0
        self._done = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the intervals from the planned number of steps."""
        self._first = self._step = trainer.global_step
        planned, self._began = trainer.estimated_stepping_batches, time.perf_counter()
        self._done = not math.isfinite(planned)
        if self._done:
            return
        if self.thin:
            trainer.log_every_n_steps = math.ceil(planned / READINGS)  # type: ignore[attr-defined]
        if trainer.max_epochs == -1:
            epochs = planned * trainer.accumulate_grad_batches / trainer.num_training_batches
            trainer.fit_loop.max_epochs = math.ceil(epochs)  # for the progress bar, which would show "Epoch 0/-2"
            if interval := trainer.check_val_every_n_epoch:
                trainer.check_val_every_n_epoch = min(interval, max(1, int(epochs / VALIDATIONS)))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Excludes the time of the validation."""
        self._began += time.perf_counter() - self._paused

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measures the first steps and prints the estimate."""
        if self._done or trainer.global_step == self._step:  # no new step if gradients are accumulated
            return
        self._step, now = trainer.global_step, time.perf_counter()
        measured, seconds = self._step - self._first - WARMUP, now - self._began
        if measured <= 0:
            self._began = now
        elif measured >= STEPS or seconds >= SECONDS:
            self._done = True
            if trainer.is_global_zero:
                steps = int(trainer.estimated_stepping_batches) - self._first
                print(f"fit: {forecast(steps, measured / seconds)}, not counting validation", flush=True)


def forecast(steps: int, rate: float) -> str:
    """Describes how long a number of steps takes at a rate in steps per second."""
    seconds = steps / rate
    units = (("seconds", 1, 90), ("minutes", 60, 90), ("hours", 3600, 48), ("days", 86400, math.inf))
    unit, length = next((unit, length) for unit, length, most in units if seconds / length < most)
    count = seconds / length
    number = f"{count:.1f}" if unit in ("hours", "days") else f"{math.ceil(count)}"
    speed = f"at {rate:.1f} steps per second" if rate >= 1 else f"of {1 / rate:.1f} seconds"
    return f"about {number} {unit}: {steps:,} steps {speed}"
