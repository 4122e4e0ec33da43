"""What TensorBoard shows of pretraining, and the alarm when it collapses."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchvision.utils import make_grid

from ccd_lightning.modules.ccd import CCD

# Below these, a spread is that of a collapse. Healthy projections stay near 1, features (all positive, so never as far
# apart) between 0.2 and 0.8, by the size of the views. Batch norm can hide from one what the other shows.
COLLAPSED = {"train/spread": 0.5, "train/feature_spread": 0.05}


class CollapseMonitor(Callback):
    """Says so, loudly and once, when all projections or all features have become one point, or not a number.

    Args:
        patience: Steps in a row for which a spread must be below the threshold.
    """

    def __init__(self, patience: int = 20) -> None:
        self.patience = patience
        self.steps = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Watches the spreads that the module logged."""
        spreads = {name: float(value) for name, value in trainer.callback_metrics.items() if name in COLLAPSED}
        if not spreads or self.steps >= self.patience:
            return
        collapsed = {name: spread for name, spread in spreads.items() if not spread >= COLLAPSED[name]}  # or is NaN
        self.steps = self.steps + 1 if collapsed else 0
        if self.steps == self.patience:
            rank_zero_warn(
                f"COLLAPSED: for {self.patience} steps {' or '.join(COLLAPSED)} has been too low (now"
                f" {min(collapsed.values()):.3f}): the encoder maps all images to one point and will not recover."
                " Start again with a lower learning rate"
                " (--model.optimizer.lr), a longer warm-up (--model.warmup_steps) or ImageNet weights"
                " (--model.encoder.weights imagenet)."
            )


class PretextDashboard(Callback):
    """Shows the views and the position pairs of the first batch.

    Args:
        images: How many images to show.
    """

    def __init__(self, images: int = 4) -> None:
        self.images = images

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Draws the pictures once."""
        logger = trainer.logger
        if trainer.global_step or not isinstance(pl_module, CCD) or not isinstance(logger, TensorBoardLogger):
            return
        logger.experiment.add_image("views/weak_by_strong", view_grid(batch["views"][: self.images]), 0)
        logger.experiment.add_image(
            "views/position_pairs", pair_grid(batch["patches"][:, :, 0], batch["position"][:, 0]), 0
        )


def view_grid(views: Tensor) -> Tensor:
    """A picture of views (B, 2, K, 3, S, S): a row an image and weak view, a column a distribution."""
    count = views.shape[2]
    grid: Tensor = make_grid(views.flatten(0, 2).float().cpu(), nrow=count, padding=2, pad_value=1.0)
    return grid


def pair_grid(patches: Tensor, position: Tensor) -> Tensor:
    """A picture of patch pairs (B, 2, 3, P, P): three by three cells an image, the second where it was drawn."""
    size = patches.shape[-1]
    boards = torch.ones(len(patches), 3, 3 * size, 3 * size)
    for board, (first, second), cell in zip(boards, patches.float().cpu(), position.tolist(), strict=True):
        row, column = divmod(cell if cell < 4 else cell + 1, 3)  # reading order, leaving out the middle
        board[:, size : 2 * size, size : 2 * size] = first
        board[:, row * size : (row + 1) * size, column * size : (column + 1) * size] = second
    grid: Tensor = make_grid(boards[:8], nrow=4, padding=6, pad_value=0.5)
    return grid
