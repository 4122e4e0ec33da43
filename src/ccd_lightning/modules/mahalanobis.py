"""Mahalanobis distance: a detector without gradient training, with one Gaussian of image features."""

from __future__ import annotations

from torch import Tensor

from ccd_lightning.distributed import gather_ranks
from ccd_lightning.encoder_config import EncoderConfig
from ccd_lightning.models import pooled
from ccd_lightning.models.anomaly_map import check_scoring, to_image
from ccd_lightning.models.content import masked_mean
from ccd_lightning.models.gaussian import Moments, PatchGaussian
from ccd_lightning.models.patch_features import FeatureConfig, PatchFeatures
from ccd_lightning.modules.statistics import StatisticsDetector


class Mahalanobis(StatisticsDetector):
    """Mahalanobis distance of an image's features, averaged over its positions (Rippel et al., ICPR 2021).

    One Gaussian describes the feature vectors of all normal images. Its covariance is estimated by the method of Ledoit
    and Wolf (2004), so there may be fewer images than channels. The detector finds abnormalities that change an image
    as a whole, and images need not be aligned. The map shows the contribution of each position to the distance: its
    mean, before negative values are set to 0 and before smoothing, is the score.

    Args:
        encoder: The encoder's weights.
        features: Which encoder features describe a position.
        blur: Standard deviation of the Gaussian that smooths the map, in pixels of a 256 px image.
        quantile: The threshold is this quantile of the scores of held-out normal images.
    """

    score_settings = ("blur",)

    def __init__(
        self,
        encoder: EncoderConfig = EncoderConfig(),
        features: FeatureConfig = FeatureConfig(positions=16, window=3, normalise=True),
        blur: float = 4.0,
        quantile: float = 0.95,
    ) -> None:
        super().__init__(encoder, quantile)
        self.save_hyperparameters(ignore=["encoder"])
        self.features = PatchFeatures(self.encoder, features)
        self.hparams.update(encoder=self.encoder.settings(), features=self.features.settings())
        check_scoring(blur, 0)
        self.blur = blur
        self.gaussian = PatchGaussian(ridge=0, shrinkage=True)
        self.positions = pooled.PositionMeans()

    def score(self, images: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns distances as scores, and the contributions of the positions to them as maps.

        Maps are 0 at positions where no training image had content.
        """
        features, (height, width) = self.features(images), images.shape[-2:]
        shown = self.features.content_mask(content, (height, width))
        with self.expecting_size(images):
            whitened = self.gaussian.whiten(masked_mean(features, shown)[:, :, None])[0]  # (B, D)
            scores = whitened.norm(dim=1)
            direction = whitened @ self.gaussian.whitening[0] / scores.clamp(min=1e-12)[:, None]
            added = self.positions.contributions(features, direction)
        count = self.features.counted(content, self.positions.known, (height, width))
        grid = self.features.grid(height, width)
        return scores, to_image(added.clamp(min=0), grid, height, width, self.blur, count)

    def collect(self, images: Tensor, content: Tensor | None = None) -> None:
        """Adds the features of one batch."""
        super().collect(images, content)
        features, shown = self.features(images), self.features.content_mask(content, images.shape[-2:])
        self.gaussian.update(masked_mean(features, shown)[:, :, None])
        self.positions.update(features, shown)

    def merge_ranks(self) -> None:
        """Merges the sums of all ranks."""
        own = Moments(*(part.cpu() for part in self.gaussian.moments))
        means = pooled.PositionSums(*(part.cpu() for part in self.positions.sums))
        shares = gather_ranks((own, means))
        self.gaussian.merge_ranks(sums for sums, _ in shares)
        self.positions.merge_ranks(sums for _, sums in shares)

    def fit_statistics(self) -> None:
        """Fits the Gaussian and the means of the positions."""
        self.gaussian.fit()
        self.positions.fit()
