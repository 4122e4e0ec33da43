"""A strong family of your own: four tone curves, which pretraining learns to tell apart.

PYTHONPATH=examples ccd fit --config ccd_folder --data.root DIR --data.views.family own_family.ToneCurve
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn


class ToneCurve(nn.Module):
    """Raises images to a power: 1 (untouched), 1/strength, strength and strength squared.

    Args:
        strength: Above 1; the larger, the easier the classes are to tell apart.
    """

    count = 4  # K, how many distributions there are; index 0 leaves an image as it is
    random = False  # it draws nothing, so one call serves the whole batch
    weak_first = ()  # the mirror image of each class is again of that class
    weak_omitted = ("colour",)  # colour jitter changes brightness, by which the classes are told apart

    def __init__(self, strength: float = 1.8) -> None:
        super().__init__()
        if strength <= 1:
            raise ValueError(f"strength must be above 1, got {strength}")
        self.strength = strength

    def forward(self, images: Tensor, index: Tensor, generator: Generator | None = None) -> Tensor:
        """Applies to each image (B, C, H, W), in [0, 1] or uint8, the curve that its index (B,) names."""
        powers = torch.tensor([1.0, 1 / self.strength, self.strength, self.strength**2], device=images.device)
        power = powers[index.to(images.device)].view(-1, 1, 1, 1)
        if images.dtype == torch.uint8:
            return ((images.float() / 255) ** power * 255).round().to(torch.uint8)
        return images**power
