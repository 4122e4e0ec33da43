"""A detector of your own in one file: how far features point away from their mean direction in normal images.

PYTHONPATH=examples ccd fit --model own_detector.MeanDirection --data Folder --data.root DIR
PYTHONPATH=examples ccd test --trust
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ccd_lightning.distributed import gather_ranks
from ccd_lightning.encoder_config import EncoderConfig
from ccd_lightning.models.anomaly_map import image_scores, to_image
from ccd_lightning.models.patch_features import FeatureConfig, PatchFeatures
from ccd_lightning.models.pooled import PositionMeans, PositionSums
from ccd_lightning.modules.statistics import StatisticsDetector


class MeanDirection(StatisticsDetector):
    """One minus the cosine similarity between a feature and the mean normal feature at its position.

    Args:
        encoder: Which network the encoder is, and where its weights come from.
        top: Share of the highest distances of an image whose mean is its score; 0 takes the maximum.
        quantile: Share of the held-out normal images whose score is at most the threshold.
    """

    score_settings = ("top",)  # may be changed in `ccd test`: the thresholds are left out then

    def __init__(
        self,
        encoder: EncoderConfig = EncoderConfig(weights="auto"),
        top: float = 0.1,
        quantile: float = 0.95,
    ) -> None:
        super().__init__(encoder, quantile)
        self.save_hyperparameters(ignore=["encoder"])
        self.top = top
        self.features = PatchFeatures(self.encoder, FeatureConfig(positions=16, window=3, normalise=True))
        self.normal = PositionMeans()  # its buffer is in the checkpoint, so a run can be tested without its encoder

    def collect(self, images: Tensor, content: Tensor | None = None) -> None:
        """Adds one batch of normal images (B, 3, H, W)."""
        super().collect(images, content)
        self.normal.update(self.features(images), self.features.content_mask(content, images.shape[-2:]))

    def merge_ranks(self) -> None:
        """Adds up what several processes have collected."""
        own = PositionSums(*(part.cpu() for part in self.normal.sums))
        self.normal.merge_ranks(gather_ranks(own))

    def fit_statistics(self) -> None:
        """Turns the sums into means."""
        self.normal.fit()

    def score(self, images: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Image scores (B,) and anomaly maps (B, H, W) of images (B, 3, H, W)."""
        height, width = images.shape[-2:]
        with self.expecting_size(images):
            features, normal = self.features(images), self.normal.means  # (B, D, h, w) and (D, h, w)
            if features.shape[1:] != normal.shape:
                raise ValueError(f"expected features {tuple(normal.shape)}")
        counted = self.features.counted(content, self.normal.known, (height, width))
        mean = torch.where(normal.isfinite(), normal, 0)[None]
        distances = 1 - functional.cosine_similarity(features, mean, dim=1).clamp(max=1)  # (B, h, w)
        maps = to_image(distances, self.features.grid(height, width), height, width, 4.0, counted)
        return image_scores(distances, self.top, counted.positions), maps
