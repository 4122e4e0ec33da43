import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccd_lightning.transforms.patches import CELLS, position_pairs


def coordinates(count: int, side: int) -> torch.Tensor:
    """Images whose pixels say where they are: (count, 2, side, side), row and column."""
    line = torch.arange(side).float()
    return torch.stack(torch.meshgrid(line, line, indexing="ij")).expand(count, -1, -1, -1)


@given(st.integers(4, 20), st.integers(0, 30), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_label_is_the_cell_and_nothing_is_clipped(size: int, room: int, seed: int) -> None:
    side = 2 * size + room
    generator = torch.Generator().manual_seed(seed)
    first, second, position = position_pairs(coordinates(64, side), size, generator)
    offset = second[:, :, 0, 0] - first[:, :, 0, 0]
    for (row, column), cell in zip(offset.tolist(), position.tolist(), strict=True):
        for moved, sign in zip((row, column), CELLS[cell], strict=True):
            assert moved * sign >= 0
            distance = abs(moved)
            assert (distance == 0) if sign == 0 else (size * 3 // 4 <= distance < size * 3 // 4 + max(size // 4, 1))
    for patches in (first, second):
        assert patches.shape == (64, 2, size, size)
        assert torch.equal(patches[:, 0, -1, 0] - patches[:, 0, 0, 0], torch.full((64,), size - 1.0))


def test_all_cells_and_places_occur() -> None:
    first, _, position = position_pairs(coordinates(4000, 64), 16, torch.Generator().manual_seed(0))
    assert torch.bincount(position, minlength=8).min() > 400
    corners = first[:, :, 0, 0]
    assert corners.min() == 0
    assert corners.max() == 64 - 16


def test_too_large_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        position_pairs(torch.zeros(1, 3, 40, 64), 32)
