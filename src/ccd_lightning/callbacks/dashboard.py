"""What TensorBoard shows of training as curves."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from ccd_lightning.callbacks.collapse import COLLAPSED
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.transforms.patches import CELLS

# Title of each chart and the scalars in it: curves, and the line beside which they show that something is learned. The
# lines are a group of their own, by a name that comes last where TensorBoard lists all scalars.
LINE = "warning_line"
CHARTS = {
    "contrastive loss (nats), and that of a collapse": (
        "train/contrastive",
        "val/contrastive",
        f"{LINE}/train_contrastive",
        f"{LINE}/val_contrastive",
    ),
    "augmentation accuracy, and chance": (
        "train/augmentation_accuracy",
        "val/augmentation_accuracy",
        f"{LINE}/augmentation_accuracy",
    ),
    "position accuracy, and chance": (
        "train/position_accuracy",
        "val/position_accuracy",
        f"{LINE}/position_accuracy",
    ),
    "spread of z, collapsed below the line": ("train/spread", "val/spread", f"{LINE}/spread"),
    "spread of features, collapsed below the line": (
        "train/feature_spread",
        "val/feature_spread",
        f"{LINE}/feature_spread",
    ),
    "alignment: 0 if views agree": ("train/alignment", "val/alignment"),
    "uniformity: 0 if all is one point": ("train/uniformity", "val/uniformity"),
    "probe AUROC, and chance": ("val/probe_auroc", f"{LINE}/probe_auroc"),
    "probe separation (nats)": ("val/probe_separation",),
    "learning rate": ("train/learning_rate.*",),
    "training images per second": ("train/images_per_second",),
}


def tensorboard(trainer: Trainer) -> SummaryWriter | None:
    """The trainer's TensorBoard writer; None on other ranks than the first and where there is none."""
    writers = (logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger))
    return next(writers, None) if trainer.is_global_zero else None


class PretextCharts(Callback):
    """Lays out pretraining's scalars in charts, each beside what chance or a collapse would give.

    The charts are on TensorBoard's tab Custom Scalars. A line is a scalar of its own, written at the first step, after
    epochs, though not more often than the curves, and at the end, so that it reaches as far as the curves beside it.
    """

    def __init__(self) -> None:
        self.lines: dict[str, float] = {}
        self.drawn = 0  # the last step up to which they are

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the layout; the lines that depend on batches are added when the first ones are seen."""
        self.lines = {}
        writer = tensorboard(trainer)
        if not isinstance(pl_module, CCD) or writer is None:
            return
        # TensorBoard reads tags as regular expressions, and takes one that matches a beginning.
        charts = {title: ["Multiline", [f"{tag}$" for tag in tags]] for title, tags in CHARTS.items()}
        writer.add_custom_scalars({"CCD pretraining": charts})
        self.lines = {
            "augmentation_accuracy": 1 / pl_module.hparams["distributions"],
            "position_accuracy": 1 / len(CELLS),
            "probe_auroc": 0.5,
            **{name.removeprefix("train/"): threshold for name, threshold in COLLAPSED.items()},
        }

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begins the lines."""
        if self.lines and "train_contrastive" not in self.lines:
            self.lines["train_contrastive"] = collapsed_contrastive(trainer, batch)
            self._draw(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Adds the line of validation, whose batches may hold fewer instances."""
        if self.lines and batch_idx == 0:
            self.lines["val_contrastive"] = collapsed_contrastive(trainer, batch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the lines up to here."""
        if self.lines and trainer.global_step - self.drawn >= trainer.log_every_n_steps:  # type: ignore[attr-defined]
            self._draw(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws them to the end."""
        if trainer.global_step != self.drawn:
            self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        self.drawn = trainer.global_step
        if writer := tensorboard(trainer):
            for name, value in self.lines.items():
                writer.add_scalar(f"{LINE}/{name}", value, trainer.global_step)


def collapsed_contrastive(trainer: Trainer, batch: Any) -> float:
    """The contrastive loss of a batch whose N instances, over all ranks, are one point: log(2N - 1) nats."""
    return math.log(2 * batch["augmentation"].numel() * trainer.world_size - 1)


class LearningRate(LearningRateMonitor):
    """Lightning's monitor, whose curves stand with those of training, and which without a logger does nothing."""

    def on_train_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Names the schedules that have no name."""
        for config in trainer.lr_scheduler_configs:
            config.name = config.name or "train/learning_rate"
        if trainer.loggers:
            super().on_train_start(trainer, *args, **kwargs)
