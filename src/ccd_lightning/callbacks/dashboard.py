"""TensorBoard's writer, its log interval, and the learning rate curves."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from ccd_lightning.callbacks.descriptions import add_descriptions


def tensorboard(trainer: Trainer) -> SummaryWriter | None:
    """Returns the trainer's TensorBoard writer; None if there is none, and on all ranks but the first.

    From the first call on, what is written has descriptions (`add_descriptions`).
    """
    if not trainer.is_global_zero:
        return None
    writers = (logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger))
    if writer := next(writers, None):
        add_descriptions(writer)
    return writer


def log_interval(trainer: Trainer) -> int:
    """Returns the number of steps between logs; 0 without logging. Lightning does not declare this attribute."""
    return int(getattr(trainer, "log_every_n_steps", 0) or 0)


class LearningRate(LearningRateMonitor):
    """Lightning's monitor, with curves in the group "train"; it does nothing without a logger."""

    def on_train_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Sets the name of schedules without one."""
        for config in trainer.lr_scheduler_configs:
            config.name = config.name or "train/learning_rate"
        if trainer.loggers:
            super().on_train_start(trainer, *args, **kwargs)
