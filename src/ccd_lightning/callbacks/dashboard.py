"""TensorBoard's writer, how often it is written to, and the curves of the learning rate."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter


def tensorboard(trainer: Trainer) -> SummaryWriter | None:
    """The trainer's TensorBoard writer; None on other ranks than the first and where there is none."""
    writers = (logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger))
    return next(writers, None) if trainer.is_global_zero else None


def log_interval(trainer: Trainer) -> int:
    """Every how many steps the trainer logs; 0 where it does not. Lightning does not declare it."""
    return int(getattr(trainer, "log_every_n_steps", 0) or 0)


class LearningRate(LearningRateMonitor):
    """Lightning's monitor, whose curves stand with those of training, and which without a logger does nothing."""

    def on_train_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Names the schedules that have no name."""
        for config in trainer.lr_scheduler_configs:
            config.name = config.name or "train/learning_rate"
        if trainer.loggers:
            super().on_train_start(trainer, *args, **kwargs)
