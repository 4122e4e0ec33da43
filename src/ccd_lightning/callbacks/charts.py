"""TensorBoard charts of pretraining."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer

from ccd_lightning.callbacks.collapse import COLLAPSED
from ccd_lightning.callbacks.dashboard import log_interval, tensorboard
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.transforms.patches import CELLS

# Prefix of the reference lines. As a separate group of scalars, with a name that sorts last, they come at the end of
# TensorBoard's list of scalars.
LINE = "warning_line"


class Chart(NamedTuple):
    """One chart.

    Attributes:
        title: Title of the chart.
        tags: Scalars in the chart: curves and their reference lines.
        task: Task, "probe" or "l2_sp" that the scalars require; None if they always exist.
    """

    title: str
    tags: tuple[str, ...]
    task: str | None = None


CHARTS = (
    Chart(
        "contrastive loss (nats) and its level after a collapse",
        ("train/contrastive", "val/contrastive", f"{LINE}/train_contrastive", f"{LINE}/val_contrastive"),
    ),
    Chart(
        "augmentation accuracy and level of chance",
        ("train/augmentation_accuracy", "val/augmentation_accuracy", f"{LINE}/augmentation_accuracy"),
        "augmentation",
    ),
    Chart(
        "position accuracy and level of chance",
        ("train/position_accuracy", "val/position_accuracy", f"{LINE}/position_accuracy"),
        "position",
    ),
    Chart("centring loss", ("train/centring", "val/centring"), "centring"),
    Chart(
        "standard deviation of projections, collapse threshold",
        ("train/projection_std", "val/projection_std", f"{LINE}/projection_std"),
    ),
    Chart(
        "standard deviation of features, collapse threshold",
        ("train/feature_std", "val/feature_std", f"{LINE}/feature_std"),
    ),
    Chart("half the squared distance from the initial weights", ("train/l2_sp",), "l2_sp"),
    Chart("alignment (0: both views have the same projection)", ("train/alignment", "val/alignment")),
    Chart("uniformity (0: collapsed to one point)", ("train/uniformity", "val/uniformity")),
    Chart("probe AUROC and level of chance", ("val/probe_auroc", f"{LINE}/probe_auroc"), "probe"),
    Chart(
        "probe AUROC for pseudo-lesions and level of chance", ("val/probe_pseudo_auroc", f"{LINE}/probe_pseudo_auroc")
    ),
    Chart("probe separation (nats)", ("val/probe_separation",), "probe"),
    Chart("learning rate", ("train/learning_rate.*",)),
    Chart("training images per second", ("train/images_per_second",)),
)


class PretextCharts(Callback):
    """Arranges the scalars of pretraining in charts, with reference lines for chance or a collapse.

    The charts are on TensorBoard's tab Custom Scalars. A reference line is a separate scalar. It is written at the
    first step, after epochs (but not more often than the curves), and at the end, so that it is as long as the curves.
    """

    def __init__(self) -> None:
        self.lines: dict[str, float] = {}
        self.drawn = 0  # last step to which the lines were drawn

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the layout; lines that depend on batches are added at the first batch."""
        self.lines = {}
        writer = tensorboard(trainer)
        if not isinstance(pl_module, CCD) or writer is None:
            return
        count = pl_module.hparams["distributions"]
        tasks = {None, *pl_module.weights} | ({"probe"} if count > 1 else set())
        tasks |= {"l2_sp"} if pl_module.encoder_config.l2_sp else set()
        shown = [chart for chart in CHARTS if chart.task in tasks]
        # TensorBoard treats tags as regular expressions that match the beginning of a name.
        charts = {chart.title: ["Multiline", [f"{tag}$" for tag in chart.tags]] for chart in shown}
        writer.add_custom_scalars({"pretraining": charts})
        lines = {
            "augmentation_accuracy": 1 / count,
            "position_accuracy": 1 / len(CELLS),
            "probe_auroc": 0.5,
            "probe_pseudo_auroc": 0.5,
            **{name.removeprefix("train/"): threshold for name, threshold in COLLAPSED.items()},
        }
        tags = {tag for chart in shown for tag in chart.tags}
        self.lines = {name: value for name, value in lines.items() if f"{LINE}/{name}" in tags}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Starts the lines."""
        if self.lines and "train_contrastive" not in self.lines:
            self.lines["train_contrastive"] = collapsed_contrastive(trainer, batch)
            self._draw(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Adds the line for validation, whose batches may have fewer instances."""
        if self.lines and batch_idx == 0:
            self.lines["val_contrastive"] = collapsed_contrastive(trainer, batch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Extends the lines to the current step."""
        if self.lines and trainer.global_step - self.drawn >= log_interval(trainer):
            self._draw(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Extends the lines to the last step."""
        if trainer.global_step != self.drawn:
            self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        self.drawn = trainer.global_step
        if writer := tensorboard(trainer):
            for name, value in self.lines.items():
                writer.add_scalar(f"{LINE}/{name}", value, trainer.global_step)


def collapsed_contrastive(trainer: Trainer, batch: Any) -> float:
    """Returns the contrastive loss of a collapsed batch with N instances over all ranks: log(2N - 1) nats."""
    images, _, distributions = batch["views"].shape[:3]
    return math.log(2 * images * distributions * trainer.world_size - 1)
