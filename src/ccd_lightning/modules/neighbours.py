"""Nearest neighbours: a detector without gradient training, with a memory bank of normal features."""

from __future__ import annotations

import torch
from torch import Tensor

from ccd_lightning.distributed import gather_ranks
from ccd_lightning.encoder_config import EncoderConfig
from ccd_lightning.memory import available_memory, require
from ccd_lightning.models.anomaly_map import check_scoring, image_scores, to_image
from ccd_lightning.models.comparison import PatchComparison, PooledComparison
from ccd_lightning.models.memory_bank import SLACK
from ccd_lightning.models.patch_features import FeatureConfig, PatchFeatures
from ccd_lightning.models.pooled import PositionSums
from ccd_lightning.modules.statistics import StatisticsDetector
from ccd_lightning.ranges import at_least


class Neighbours(StatisticsDetector):
    """Distance to the nearest normal features (PatchCore, Roth et al., CVPR 2022).

    Fitting takes one epoch over the normal images. All features are kept; if there are more than `bank_size`, they are
    reduced to a greedy coreset. Without a coreset, the result depends neither on the order of the images nor on the
    number of processes. With a coreset it depends on both, because coresets of parts of the images are combined.

    Args:
        encoder: The encoder's weights.
        features: Which encoder features describe a position.
        window: A feature is compared with normal features at most this many positions away, along both axes: 0 for
            images that are aligned to the pixel, 1 or 2 for images that are roughly aligned. None compares with the
            features of all positions, as published.
        bank_size: Maximum number of features in the memory bank, over all positions (at least one each). None
            keeps all.
        reweight: Number b of neighbours of the nearest feature that are used to reweight the score, by equation 7 of
            the paper. 0 turns reweighting off.
        pooled: Whether to compare the mean feature of an image instead of the feature of each position. The score is
            then the mean distance to the 3 nearest images, and the map shows the contribution of each position.
        blur: Standard deviation of the Gaussian that smooths the map, in pixels of a 256 px image.
        top: The image score is the mean of this share of the highest distances. 0 uses the maximum, as published.
        quantile: The threshold is this quantile of the scores of held-out normal images.
    """

    score_settings = ("window", "reweight", "blur", "top")
    nearest_images = 3

    def __init__(
        self,
        encoder: EncoderConfig = EncoderConfig(),
        features: FeatureConfig = FeatureConfig(positions=16, window=3, normalise=True),
        window: int | None = 1,
        bank_size: int | None = 50_000,
        reweight: int = 0,
        pooled: bool = False,
        blur: float = 4.0,
        top: float = 0.1,
        quantile: float = 0.95,
    ) -> None:
        super().__init__(encoder, quantile)
        self.save_hyperparameters(ignore=["encoder"])
        self.features = PatchFeatures(self.encoder, features)
        self.hparams.update(encoder=self.encoder.settings(), features=self.features.settings())
        check_scoring(blur, top)
        for name, value, least in (("window", window, 0), ("bank_size", bank_size, 1), ("reweight", reweight, 0)):
            at_least(f"model.{name}", value, least)
        self.blur, self.top = blur, top
        self.comparison = (
            PooledComparison(bank_size, self.nearest_images) if pooled else PatchComparison(bank_size, window, reweight)
        )

    def score(self, images: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns scores and maps of distances.

        Scores are the mean of the highest distances, or with `pooled` the distance of the whole image. Maps are 0 at
        positions without a normal feature within the window.
        """
        height, width = images.shape[-2:]
        with self.expecting_size(images):
            known = self.comparison.known(*self.features.positions(height, width))
            count = self.features.counted(content, known, (height, width))
            shown = self.features.content_mask(content, (height, width)) if self.pooled else count.positions
            distances, whole = self.comparison(self.features(images), shown)
        maps = to_image(distances, self.features.grid(height, width), height, width, self.blur, count)
        if self.pooled:
            assert whole is not None
            return whole, maps
        scores = image_scores(distances, self.top, count.positions)
        return scores if whole is None else scores * whole, maps

    @property
    def pooled(self) -> bool:
        """Whether each image is compared as one vector."""
        return isinstance(self.comparison, PooledComparison)

    def collect(self, images: Tensor, content: Tensor | None = None) -> None:
        """Adds the features of one batch."""
        super().collect(images, content)
        self.comparison.update(self.features(images), self.features.content_mask(content, images.shape[-2:]))

    def merge_ranks(self) -> None:
        """Gathers the features of all ranks; a rank with too many features reduces them to a coreset first."""
        bank = self.comparison.bank
        parts = gather_ranks(bank.collected().cpu())
        bank.replace(torch.cat(parts, dim=1).to(self.device))
        if isinstance(self.comparison, PooledComparison):
            own = PositionSums(*(part.cpu() for part in self.comparison.positions.sums))
            self.comparison.positions.merge_ranks(gather_ranks(own))

    def fit_statistics(self) -> None:
        """Builds the memory bank."""
        self.comparison.fit()

    def check_memory(self, size: tuple[int, int], device: torch.device, processes: int) -> None:
        """Checks that the bank fits into memory while it is collected, unless its size is unlimited."""
        needed = (SLACK + 1) * (self.comparison.bank.size or 0) * self.features.channels * 4
        available = available_memory() / processes
        if device.type == "cuda":
            available = float(torch.cuda.mem_get_info(device)[0])
        what = f"A bank of {self.comparison.bank.size} features of {self.features.channels} channels, memory"
        require(needed, available, what, "Choose a smaller --model.bank_size.")
