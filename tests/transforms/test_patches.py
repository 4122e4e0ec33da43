from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccd_lightning.transforms.patches import (
    CELLS,
    coverage,
    cut,
    draw_tile,
    fold_windows,
    position_pairs,
    tiles,
    windows,
)


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


def test_tiles_lie_on_the_grid_and_all_of_them_are_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = Counter(draw_tile(64, 96, 32, generator) for _ in range(600))
    assert set(drawn) == {(row, column) for row in (0, 32) for column in (0, 32, 64)}
    assert min(drawn.values()) > 60


@pytest.mark.parametrize(("height", "width", "side"), [(64, 80, 32), (80, 64, 32), (16, 16, 32), (64, 64, -1)])
def test_images_that_do_not_divide_into_tiles_are_refused(height: int, width: int, side: int) -> None:
    with pytest.raises(ValueError, match=rf"{height} x {width} px do not divide .*tile is {side}"):
        draw_tile(height, width, side)


def test_squares_are_cut_where_they_should_be() -> None:
    squares = cut(coordinates(2, 10), [(0, 7), (4, 1)], 3)
    assert squares[:, :, 0, 0].tolist() == [[0, 7], [4, 1]]
    assert squares[:, :, -1, -1].tolist() == [[2, 9], [6, 3]]


def test_tiles_divide_images_in_reading_order() -> None:
    images = torch.arange(2 * 3 * 8 * 12).view(2, 3, 8, 12)
    parts = tiles(images, 4)
    assert parts.shape == (12, 3, 4, 4)
    assert torch.equal(parts[4], images[0, :, 4:8, 4:8])
    assert torch.equal(parts[6], images[1, :, :4, :4])


@pytest.mark.parametrize(("side", "stride"), [(4, 2), (4, 4), (6, 3), (12, 1)])
def test_windows_are_put_back_where_they_were(side: int, stride: int) -> None:
    images = torch.randn(2, 3, 12, 12)
    grid = windows(images, side, stride)
    assert torch.equal(grid[1, 0, -1], images[1, :, :side, -side:])
    across = coverage(12, side, stride)
    whole = fold_windows(grid[:, :, :, 0], stride) / (across[:, None] * across)
    assert torch.allclose(whole, images[:, 0], atol=1e-6)


def test_coverage_counts_windows() -> None:
    assert coverage(10, 4, 2).tolist() == [1, 1, 2, 2, 2, 2, 2, 2, 1, 1]
