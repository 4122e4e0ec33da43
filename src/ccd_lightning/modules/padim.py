"""PaDiM: a detector without gradient training, with one Gaussian per position."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ccd_lightning.encoder_config import EncoderConfig
from ccd_lightning.errors import UserError
from ccd_lightning.memory import available_memory, require
from ccd_lightning.memory import size as memory_size
from ccd_lightning.models.anomaly_map import check_scoring, image_scores, to_image
from ccd_lightning.models.gaussian import MATRICES_PER_CHUNK, Moments, PatchGaussian
from ccd_lightning.models.patch_features import FeatureConfig, PatchFeatures
from ccd_lightning.modules.statistics import StatisticsDetector
from ccd_lightning.ranges import above, at_least

ALIGNED = "features_aligned"  # key in checkpoints: layers were aligned by the positions of their units


class PaDiM(StatisticsDetector):
    """One Gaussian of encoder features per position (Defard et al., ICPR 2020).

    Fitting takes one epoch over the normal images and memory that does not depend on their number.

    Args:
        encoder: The encoder's weights.
        features: Which encoder features describe a position. The paper uses layers 1 to 3 without averaging, at the
            resolution of the first.
        channels: d, the number of feature channels that are used (all, if there are fewer), drawn at random by the
            seed.
        ridge: Added to the diagonal of every covariance. It must be above 0, or with shrinkage at least 0.
        shrinkage: Whether covariances are shrunk towards a multiple of the identity (Ledoit and Wolf, 2004), which
            helps if there are fewer images than channels.
        blur: Standard deviation of the Gaussian that smooths the map, in pixels of a 256 px image.
        top: The image score is the mean of this share of the highest map values. 0 uses the maximum, as published.
        quantile: The threshold is this quantile of the scores of held-out normal images.
    """

    score_settings = ("blur", "top")

    selected: Tensor

    def __init__(
        self,
        encoder: EncoderConfig = EncoderConfig(),
        features: FeatureConfig = FeatureConfig(),
        channels: int = 100,
        ridge: float = 0.01,
        shrinkage: bool = False,
        blur: float = 4.0,
        top: float = 0.0,
        quantile: float = 0.95,
    ) -> None:
        super().__init__(encoder, quantile)
        self.features = PatchFeatures(self.encoder, features)
        at_least("model.channels", channels, 1)
        if not (ridge == 0 and shrinkage):
            above("model.ridge", ridge, 0, ", or 0 with --model.shrinkage true")
        check_scoring(blur, top)
        self.save_hyperparameters(ignore=["encoder"])
        self.hparams.update(encoder=self.encoder.settings(), features=self.features.settings())
        self.register_buffer("selected", torch.randperm(self.features.channels)[:channels].sort().values)
        self._divide_selected()
        self.register_load_state_dict_post_hook(PaDiM._divide_selected)  # type: ignore[no-untyped-call]
        self.gaussian = PatchGaussian(ridge, shrinkage=shrinkage)
        self.blur, self.top = blur, top

    def embed(self, images: Tensor) -> Tensor:
        """Returns the selected features (B, d, h, w) of images (B, 3, H, W)."""
        return self.features(images, [self.get_buffer(f"selected_{index}") for index in range(self._levels)])

    def _divide_selected(self, _: Any = None) -> None:
        """Stores the selected channels of each level as buffers: they move with the module, and export as constants."""
        parts = self.features.by_level(self.selected)
        self._levels = len(parts)
        for index, part in enumerate(parts):
            self.register_buffer(f"selected_{index}", part, persistent=False)

    def score(self, images: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns smoothed Mahalanobis distances as maps, and the mean of their highest values as scores.

        Maps are 0 at positions without a Gaussian, which were content of fewer than two training images.
        """
        height, width = images.shape[-2:]
        with self.expecting_size(images):
            distances = self.gaussian.mahalanobis(self.embed(images))  # (B, h, w)
        count = self.features.counted(content, self.gaussian.known, (height, width))
        maps = to_image(distances, self.features.grid(height, width), height, width, self.blur, count)
        return image_scores(maps, self.top, count.pixels), maps

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Marks the Gaussians as fitted to aligned features."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[ALIGNED] = True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Rejects checkpoints of older versions, which aligned features differently: their scores would be wrong."""
        super().on_load_checkpoint(checkpoint)
        if not checkpoint.get(ALIGNED):
            raise UserError(
                "This PaDiM run was fitted by an older version, which stacked the layers' features several pixels"
                " apart. Fit it again with the same config (one epoch)."
            )

    def memory(self, size: tuple[int, int], processes: int = 1) -> tuple[int, int]:
        """Returns the maximum number of bytes for fitting in one process, and the size of the checkpoint in bytes.

        Args:
            size: Height and width of the images in pixels.
            processes: Number of processes that fit together; each gathers the sums of all.
        """
        positions, matrix = math.prod(self.features.positions(*size)), self.selected.numel() ** 2
        # Either the sums in float64, the result in float32 and a chunk of matrices, or the sums of all processes.
        fitting = positions * (8 + 4) + min(positions, MATRICES_PER_CHUNK) * 3 * 8
        gathering = (processes + 2) * positions * 8 if processes > 1 else 0
        return matrix * max(fitting, gathering), (matrix + self.selected.numel()) // 2 * positions * 4

    def check_memory(self, size: tuple[int, int], device: torch.device, processes: int) -> None:
        """Checks that memory is large enough; the error suggests a number of channels that fits."""
        needed, stored = self.memory(size, processes)
        available, where = available_memory(), "memory"
        if device.type == "cuda":
            available, where = float(torch.cuda.mem_get_info(device)[0]), f"memory of {device}"
        else:
            needed *= processes
        fitting = math.isqrt(int(available * self.selected.numel() ** 2 // needed)) if needed > available else 0
        channels = f"--model.channels {fitting} fits, and so may" if fitting else "Choose"
        side = str(size[0]) if size[0] == size[1] else f"{size[0]} x {size[1]}"
        what = f"PaDiM of {self.selected.numel()} channels on images of {side} px (checkpoint: {memory_size(stored)})"
        others = f", or --model.features.positions {min(self.features.positions(*size)) // 2}"
        require(needed, available, f"{what}, {where}", f"{channels} a smaller --data.size{others}.")

    def collect(self, images: Tensor, content: Tensor | None = None) -> None:
        """Adds one batch to the sums."""
        super().collect(images, content)
        self.gaussian.update(self.embed(images), self.features.content_mask(content, images.shape[-2:]))

    def merge_ranks(self) -> None:
        """Merges the sums of all ranks."""
        gathered = [torch.as_tensor(self.all_gather(part.to(self.device))) for part in self.gaussian.moments]
        self.gaussian.merge_ranks(Moments(*parts) for parts in zip(*gathered, strict=True))

    def fit_statistics(self) -> None:
        """Fits the Gaussians."""
        self.gaussian.fit()
