"""Strong augmentation families: K = 4 distributions of an image, index 0 untouched."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Permutation(nn.Module):
    """Swaps the halves of an image: its rows when index // 2 is 1, its columns when index % 2 is 1.

    Args of the call:
        images: (B, C, H, W), H and W even, any type.
        index: (B,) in 0..3.

    Returns of the call:
        (B, C, H, W), a new tensor.
    """

    count = 4

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Applies to each image the swap that its index names."""
        height, width = images.shape[-2:]
        if height % 2 or width % 2:
            raise ValueError(f"Permutation needs even height and width, got {height} x {width}")
        rows, columns = (_choice(chosen, images) for chosen in (index // 2, index % 2))
        images = torch.where(rows, images.roll(height // 2, dims=-2), images)
        return torch.where(columns, images.roll(width // 2, dims=-1), images)


def _choice(chosen: Tensor, images: Tensor) -> Tensor:
    return chosen.bool().to(images.device).view(-1, 1, 1, 1)
