"""The alarm when pretraining collapses, and advice on families of strong augmentations."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from ccd_lightning.callbacks.dashboard import log_interval
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.transforms.pretext import PretextViews

# Below these, a standard deviation is that of a collapse. Healthy projections stay near 1, features (all positive, so
# never as far apart) between 0.2 and 0.8, by the size of the views. Batch norm can hide from one what the other shows.
COLLAPSED = {"train/projection_std": 0.5, "train/feature_std": 0.05}


class CollapseMonitor(Callback):
    """Says so, loudly and once, when all projections or all features have become one point, or not a number.

    Args:
        patience: Steps in a row for which a standard deviation must be below the threshold.
    """

    def __init__(self, patience: int = 20) -> None:
        self.patience = patience
        self.readings = 0  # in a row, of a collapse
        self.seen = -1  # the step of the last one
        self.warned = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Watches the standard deviations, when they are logged and hence read from the device anyway."""
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
