"""Warnings when pretraining collapses, and on unsuitable families of strong augmentations."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from ccd_lightning.callbacks.dashboard import log_interval
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.transforms.pretext import PretextViews

# Lower standard deviations indicate a collapse. Healthy projections stay near 1. Features are all positive and so less
# spread: between 0.2 and 0.8, depending on the size of the views. Batch norm can hide a collapse from one of the two.
COLLAPSED = {"train/projection_std": 0.5, "train/feature_std": 0.05}


class CollapseMonitor(Callback):
    """Warns once if all projections or all features have collapsed to one point, or are not finite.

    Args:
        patience: Number of consecutive steps for which a standard deviation must be below the threshold.
    """

    def __init__(self, patience: int = 20) -> None:
        self.patience = patience
        self.readings = 0  # consecutive readings that indicate a collapse
        self.seen = -1  # step of the last reading
        self.warned = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Checks the standard deviations when they are logged, and so read from the device anyway."""
        interval = log_interval(trainer)
        if self.warned or not interval or trainer.global_step == self.seen or trainer.global_step % interval:
            return
        self.seen = trainer.global_step
        read = {name: float(value) for name, value in trainer.callback_metrics.items() if name in COLLAPSED}
        if not read:
            return
        collapsed = {name: value for name, value in read.items() if not value >= COLLAPSED[name]}  # or is NaN
        self.readings = self.readings + 1 if collapsed else 0
        steps = self.readings * interval
        if steps >= self.patience and self.readings > 1:
            self.warned = True
            rank_zero_warn(
                f"COLLAPSED: for {steps} steps {' or '.join(COLLAPSED)} has been too low (now"
                f" {min(collapsed.values()):.3f}): the encoder maps all images to one point and will not recover."
                " Start again with a lower learning rate"
                " (--model.optimizer.lr), a longer warm-up (--model.warmup_steps) or ImageNet weights"
                " (--model.encoder.weights imagenet)."
            )


class FamilyAdvice(Callback):
    """Warns of problems with the family of strong augmentations.

    It warns at the end of a fit if the classes cannot be distinguished on held-out images. The augmentation loss then
    taught nothing, and the contrastive loss required differences that do not exist. At the start of a fit, it warns if
    the family ignores an option.

    Args:
        margin: An accuracy below this multiple of chance counts as chance.
    """

    def __init__(self, margin: float = 1.3) -> None:
        self.margin = margin

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warns if the family omits a weak augmentation that the config requests."""
        views = getattr(getattr(trainer, "datamodule", None), "views", None)
        if isinstance(views, PretextViews) and views.cutout_size and not views.settings.cutout_size:
            rank_zero_warn(
                f"data.views.cutout_size {views.cutout_size} is ignored: with {type(views.family).__name__} weak views"
                " have no hole, which would look like one of the strong augmentations."
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compares the last accuracy with chance."""
        accuracy = trainer.callback_metrics.get("val/augmentation_accuracy")
        if not isinstance(pl_module, CCD) or accuracy is None or not pl_module.hparams["augmentation_weight"]:
            return
        chance = 1 / pl_module.hparams["distributions"]
        if accuracy < min(self.margin * chance, 1):
            rank_zero_warn(
                f"On held-out images the strong augmentations cannot be distinguished (accuracy {accuracy:.2f},"
                f" chance {chance:.2f}). If more epochs do not change that, this family does not suit these images: try"
                " another (--data.views.family ccd_lightning.transforms.strong.Permutation, Rotation, Cutout or Noise)."
            )
