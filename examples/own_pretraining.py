"""A pretraining of your own: predict by how many quarter turns an image was rotated (Gidaris et al., ICLR 2018).

PYTHONPATH=examples ccd fit --model own_pretraining.RotationPrediction --data Folder --data.root DIR
"""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional

from ccd_lightning.encoder_config import TrainedEncoderConfig
from ccd_lightning.modules.pretraining import EncoderPretraining


class RotationPrediction(EncoderPretraining):
    """Cross-entropy of a linear head on the encoder's features, over four rotations of each image.

    Args:
        encoder: Which network the encoder is, which weights it starts from, and how far they may change.
        optimizer: Makes the optimiser from the parameters.
        warmup_steps: Optimiser steps over which the learning rate rises.
        schedule: Whether the cosine falls with each "step" or with each "epoch".
    """

    def __init__(
        self,
        encoder: TrainedEncoderConfig = TrainedEncoderConfig(),
        optimizer: OptimizerCallable = lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-4),
        warmup_steps: int = 30,
        schedule: Literal["step", "epoch"] = "step",
    ) -> None:
        super().__init__(encoder, {"rotation": 1.0}, optimizer, warmup_steps, schedule)
        self.save_hyperparameters(ignore=["optimizer", "encoder"])
        self.head = nn.Linear(self.encoder.features_size, 4)

    def losses(self, batch: dict[str, Tensor], across_ranks: bool = False) -> dict[str, Tensor]:
        """The loss by its name in the weights above, and the accuracy, which is logged beside it."""
        images = batch["image"]  # (B, 3, H, W) in [0, 1], square
        turned = torch.cat([images.rot90(quarters, (-2, -1)) for quarters in range(4)])  # (4B, 3, H, W)
        target = torch.arange(4, device=images.device).repeat_interleave(len(images))
        logits = self.head(self.encoder.features(turned))  # (4B, 4)
        accuracy = (logits.argmax(dim=1) == target).float().mean()
        return {"rotation": functional.cross_entropy(logits, target), "rotation_accuracy": accuracy}
