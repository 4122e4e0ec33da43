"""PaDiM, a detector without gradients."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from ccd_lightning.encoder_config import EncoderConfig
from ccd_lightning.errors import UserError
from ccd_lightning.grids import IMAGE, Grid, resample
from ccd_lightning.memory import available_memory, require
from ccd_lightning.memory import size as memory_size
from ccd_lightning.models.gaussian import PatchGaussian
from ccd_lightning.modules.statistics import StatisticsDetector

ALIGNED = "features_aligned"  # in checkpoints: that the layers were stacked where their units look


class PaDiM(StatisticsDetector):
    """One Gaussian of encoder features a position (Defard et al., ICPR 2020).

    Fitting takes one epoch over the normal images and memory that does not depend on their number.

    Args:
        encoder: Where the encoder's weights come from.
        layers: Levels of the encoder that are used, rising, as `ccd encoders NAME` lists them. The map has the
            resolution of the first. None takes those of stride 4, 8 and 16 (1, 2 and 3 of ResNets); of vision
            transformers, whose levels all have one stride, those at a quarter, a half and three quarters of the depth.
        channels: d, how many of these levels' channels are used. They are drawn once, by the seed.
        ridge: Added to the diagonal of every covariance.
        blur: Standard deviation of the Gaussian that smooths the map, in pixels of a 256 px image.
        quantile: Share of the held-out normal images whose score is at most the threshold.
    """

    score_settings = ("blur",)

    selected: Tensor

    def __init__(
        self,
        encoder: EncoderConfig = EncoderConfig(),  # noqa: B008  (jsonargparse reads the default)
        layers: tuple[int, ...] | None = None,
        channels: int = 100,
        ridge: float = 0.01,
        blur: float = 4.0,
        quantile: float = 0.95,
    ) -> None:
        super().__init__(encoder, quantile)
        self.layers = self._checked_layers(layers)
        available = sum(self.encoder.channels[layer] for layer in self.layers)
        if not 0 < channels <= available:
            raise UserError(f"model.channels is {channels}, but must be between 1 and {available}.")
        self.save_hyperparameters(ignore=["encoder"])
        self.hparams.update(encoder=self.encoder.settings(), layers=self.layers)
        self.register_buffer("selected", torch.randperm(available)[:channels].sort().values)
        self.gaussian = PatchGaussian(ridge)
        self.blur = blur

    def _checked_layers(self, layers: tuple[int, ...] | None) -> tuple[int, ...]:
        """The levels to use.

        Raises:
            UserError: If the encoder has not all of them.
        """
        if layers is None:
            return self.encoder.default_levels
        count = len(self.encoder.channels)
        if not layers or list(layers) != sorted({*layers} & {*range(count)}):
            raise UserError(
                f"model.layers is {list(layers)}, but must be some of 0 to {count - 1}, rising: the levels of"
                f" {self.encoder.name}, which ccd encoders {self.encoder.name} lists."
            )
        return tuple(layers)

    def embed(self, images: Tensor) -> Tensor:
        """Features of the levels where the first one's units look: (B, 3, H, W) to (B, d, h, w)."""
        levels, grids = self.encoder.maps(images, self.layers), self._grids(images)
        size = levels[0].shape[-2:]
        maps = [resample(level, grid, grids[0], size) for level, grid in zip(levels, grids, strict=True)]
        return torch.cat(maps, dim=1)[:, self.selected]

    def _grids(self, images: Tensor) -> list[tuple[Grid, Grid]]:
        return self.encoder.grids((images.shape[-2], images.shape[-1]), self.layers)

    def score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Smoothed Mahalanobis distances as map, their maximum as score."""
        try:
            distance = self.gaussian.mahalanobis(self.embed(images))[:, None]  # (B, 1, h, w)
        except ValueError as error:
            height, width = images.shape[-2:]
            raise UserError(
                f"Images of {width} x {height} px do not go with this detector: it was not fitted, or at another"
                f" --data.size ({error})."
            ) from error
        maps = resample(distance, self._grids(images)[0], IMAGE, images.shape[-2:])
        sigma = self.blur * images.shape[-1] / 256
        kernel = 2 * round(4 * sigma) + 1
        maps = gaussian_blur(maps, [kernel, kernel], [sigma, sigma])[:, 0]
        return maps.amax(dim=(1, 2)), maps

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Says that the Gaussians are those of aligned features."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[ALIGNED] = True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses Gaussians of features that an older version stacked otherwise: scores would be wrong."""
        super().on_load_checkpoint(checkpoint)
        if not checkpoint.get(ALIGNED):
            raise UserError(
                "This PaDiM run was fitted by an older version, which stacked the layers' features several pixels"
                " apart. Fit it again with the same config (one epoch)."
            )

    def memory(self, size: int, processes: int = 1) -> tuple[int, int]:
        """Bytes that fitting takes in a process at most, and those that the checkpoint takes.

        Args:
            size: Side of the images, in pixels.
            processes: That fit together, and gather the sums of all.
        """
        side = math.ceil(size / self.encoder.strides[self.layers[0]])
        entries = side**2 * self.selected.numel() ** 2  # of one matrix per position
        # Float64: sums, covariances, factors, inverses, and then these in float32; or the sums of all processes.
        gathered = processes + 2 if processes > 1 else 0
        return entries * max(4 * 8 + 4, gathered * 8), entries * 4

    def check_memory(self, size: int, device: torch.device, processes: int) -> None:
        """Refuses what does not fit, with the number of channels that does."""
        needed, stored = self.memory(size, processes)
        available, where = available_memory(), "memory"
        if device.type == "cuda":
            available, where = float(torch.cuda.mem_get_info(device)[0]), f"memory of {device}"
        else:
            needed *= processes
        fitting = math.isqrt(int(available * self.selected.numel() ** 2 // needed)) if needed > available else 0
        channels = f"--model.channels {fitting} fits, and so may" if fitting else "Choose"
        what = f"PaDiM of {self.selected.numel()} channels on images of {size} px (checkpoint: {memory_size(stored)})"
        others = ", or --model.layers without the first" if len(self.layers) > 1 else ""
        require(needed, available, f"{what}, {where}", f"{channels} a smaller --data.size{others}.")

    def collect(self, images: Tensor) -> None:
        """Accumulates the sums of one batch."""
        self.gaussian.update(self.embed(images))

    def merge_ranks(self) -> None:
        """Merges the sums of all ranks."""
        gathered = (self.all_gather(torch.as_tensor(part, device=self.device)) for part in self.gaussian.sums)
        self.gaussian.merge_ranks(*map(torch.as_tensor, gathered))

    def fit_statistics(self) -> None:
        """Fits the Gaussians."""
        self.gaussian.fit()
