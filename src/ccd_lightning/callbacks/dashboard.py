"""What is watched while training runs: collapse, the family of strong augmentations, learning rate and speed."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.tensorboard import SummaryWriter

from ccd_lightning.modules.ccd import CCD
from ccd_lightning.transforms.pretext import PretextViews

# Below these, a standard deviation is that of a collapse. Healthy projections stay near 1, features (all positive, so
# never as far apart) between 0.2 and 0.8, by the size of the views. Batch norm can hide from one what the other shows.
COLLAPSED = {"train/projection_std": 0.5, "train/feature_std": 0.05}


def tensorboard(trainer: Trainer) -> SummaryWriter | None:
    """The trainer's TensorBoard writer; None on other ranks than the first and where there is none."""
    writers = (logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger))
    return next(writers, None) if trainer.is_global_zero else None


def log_interval(trainer: Trainer) -> int:
    """Every how many steps the trainer logs; 0 where it does not. Lightning does not declare it."""
    return int(getattr(trainer, "log_every_n_steps", 0) or 0)


class CollapseMonitor(Callback):
    """Says so, loudly and once, when all projections or all features have become one point, or not a number.

    Args:
        patience: Steps in a row for which a standard deviation must be below the threshold.
    """

    def __init__(self, patience: int = 20) -> None:
        self.patience = patience
        self.readings = 0  # in a row, of a collapse
        self.seen = -1  # the step of the last one
        self.told = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Watches the standard deviations, when they are logged and hence read from the device anyway."""
        interval = log_interval(trainer)
        if self.told or not interval or trainer.global_step == self.seen or trainer.global_step % interval:
            return
        self.seen = trainer.global_step
        read = {name: float(value) for name, value in trainer.callback_metrics.items() if name in COLLAPSED}
        if not read:
            return
        collapsed = {name: value for name, value in read.items() if not value >= COLLAPSED[name]}  # or is NaN
        self.readings = self.readings + 1 if collapsed else 0
        steps = self.readings * interval
        if steps >= self.patience and self.readings > 1:
            self.told = True
            rank_zero_warn(
                f"COLLAPSED: for {steps} steps {' or '.join(COLLAPSED)} has been too low (now"
                f" {min(collapsed.values()):.3f}): the encoder maps all images to one point and will not recover."
                " Start again with a lower learning rate"
                " (--model.optimizer.lr), a longer warm-up (--model.warmup_steps) or ImageNet weights"
                " (--model.encoder.weights imagenet)."
            )


class FamilyAdvice(Callback):
    """Says what does not go with a family of strong augmentations.

    At the end of a fit: that its classes cannot be told from each other on held-out images. Then the augmentation term
    taught nothing, and the contrastive one asked for differences that are not there.

    Args:
        margin: Below this many times chance an accuracy counts as chance.
    """

    def __init__(self, margin: float = 1.3) -> None:
        self.margin = margin

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells when the family leaves out what the config asks for."""
        views = getattr(getattr(trainer, "datamodule", None), "views", None)
        if isinstance(views, PretextViews) and views.hole and not views.settings.hole:
            rank_zero_warn(
                f"data.views.hole {views.hole} is ignored: with {type(views.family).__name__} weak views have no hole,"
                " which would look like one of the strong augmentations."
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compares the last accuracy with chance."""
        accuracy = trainer.callback_metrics.get("val/augmentation_accuracy")
        if not isinstance(pl_module, CCD) or accuracy is None or not pl_module.hparams["augmentation_weight"]:
            return
        chance = 1 / pl_module.hparams["distributions"]
        if accuracy < min(self.margin * chance, 1):
            rank_zero_warn(
                f"On held-out images the strong augmentations cannot be told from each other (accuracy {accuracy:.2f},"
                f" chance {chance:.2f}). If more epochs do not change that, this family does not suit these images: try"
                " another (--data.views.family ccd_lightning.transforms.strong.Permutation, Rotation, Cutout or Noise)."
            )


class LearningRate(LearningRateMonitor):
    """Lightning's monitor, whose curves stand with those of training, and which without a logger does nothing."""

    def on_train_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Names the schedules that have no name."""
        for config in trainer.lr_scheduler_configs:
            config.name = config.name or "train/learning_rate"
        if trainer.loggers:
            super().on_train_start(trainer, *args, **kwargs)


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
