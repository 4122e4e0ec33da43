"""How long a fit will take, and how often it is worth writing down and validating."""

from __future__ import annotations

import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

READINGS = 10_000  # of each curve: with 18 curves of 100 bytes a reading, an event file of 18 MB
VALIDATIONS = 4  # at least, where the length is given in steps
WARMUP = 2  # steps in which workers start and kernels are chosen
STEPS, SECONDS = 10, 20.0  # to measure over, whichever comes first


class Pace(Callback):
    """Says once, on the first rank, how long the fit will take, measured on its first steps.

    It also thins out what is logged in long fits, and shortens the interval of validations in fits of few epochs.

    Attributes:
        thin: Whether to choose the trainer's `log_every_n_steps`, because nobody else has.
    """

    def __init__(self) -> None:
        self.thin = False
        self._first = self._step = 0
        self._began = self._paused = 0.0
        self._told = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Chooses the intervals from the number of steps to come."""
        self._first = self._step = trainer.global_step
        planned, self._began = trainer.estimated_stepping_batches, time.perf_counter()
        self._told = not math.isfinite(planned)
        if self._told:
            return
        if self.thin:
            trainer.log_every_n_steps = math.ceil(planned / READINGS)  # type: ignore[attr-defined]
        if trainer.max_epochs == -1 and trainer.check_val_every_n_epoch:
            epochs = planned * trainer.accumulate_grad_batches / trainer.num_training_batches
            trainer.check_val_every_n_epoch = min(trainer.check_val_every_n_epoch, max(1, int(epochs / VALIDATIONS)))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves out the time that validation took."""
        self._began += time.perf_counter() - self._paused

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the first steps, and tells what follows from them."""
        if self._told or trainer.global_step == self._step:  # gradients may be being accumulated
            return
        self._step, now = trainer.global_step, time.perf_counter()
        measured, seconds = self._step - self._first - WARMUP, now - self._began
        if measured <= 0:
            self._began = now
        elif measured >= STEPS or seconds >= SECONDS:
            self._told = True
            if trainer.is_global_zero:
                steps = int(trainer.estimated_stepping_batches) - self._first
                print(f"fit: {forecast(steps, measured / seconds)}, not counting validation", flush=True)


def forecast(steps: int, rate: float) -> str:
    """How long a number of steps takes at a rate per second, in words."""
    seconds = steps / rate
    units = (("seconds", 1, 90), ("minutes", 60, 90), ("hours", 3600, 48), ("days", 86400, math.inf))
    unit, length = next((unit, length) for unit, length, most in units if seconds / length < most)
    count = seconds / length
    number = f"{count:.1f}" if unit in ("hours", "days") else f"{math.ceil(count)}"
    speed = f"at {rate:.1f} steps per second" if rate >= 1 else f"of {1 / rate:.1f} seconds"
    return f"about {number} {unit}: {steps:,} steps {speed}"
