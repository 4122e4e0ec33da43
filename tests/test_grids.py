"""Maps are brought to where their units look."""

import pytest
import torch
from torch.nn import functional

from ccd_lightning.grids import IMAGE, Grid, pooled, resample
from ccd_lightning.models.encoder import Encoder


@pytest.mark.parametrize("size", [(8, 8), (33, 50), (97, 64), (256, 17)])
@pytest.mark.parametrize("grid", [Grid(4), Grid(16), pooled(2), pooled(14), Grid(3, 7.5)])
def test_a_ramp_stays_a_ramp_between_the_outermost_units(grid: Grid, size: tuple[int, int]) -> None:
    """Any linear function of the place is kept exactly, and is what it is at the nearest unit beyond them."""
    centres = [grid.offset + grid.stride * torch.arange(max(1, int(side // grid.stride))) for side in size]
    maps = 3 * centres[0][:, None] - 2 * centres[1]
    rows, columns = (torch.arange(side).clamp(unit[0], unit[-1]) for side, unit in zip(size, centres, strict=True))
    assert torch.allclose(resample(maps, grid, IMAGE, size), 3 * rows[:, None] - 2 * columns, atol=1e-3)


def test_a_cells_value_is_that_of_its_centre() -> None:
    maps = torch.rand(2, 3, 5, 7)
    expected = functional.interpolate(maps, size=(40, 56), mode="bilinear", align_corners=False)
    assert torch.allclose(resample(maps, pooled(8), IMAGE, (40, 56)), expected, atol=1e-5)


def test_units_of_a_coarse_level_are_found_at_every_other_one_of_the_finer() -> None:
    coarse = torch.rand(2, 3, 4, 5)
    fine = resample(coarse, Grid(8), Grid(4), (8, 9))
    assert torch.equal(fine[..., ::2, ::2], coarse)
    assert torch.allclose(fine[..., 1:-1:2, ::2], (coarse[..., :-1, :] + coarse[..., 1:, :]) / 2)
    assert torch.equal(fine[..., 7, ::2], coarse[..., 3, :])  # beyond the last unit


def test_maps_whose_channels_lie_side_by_side_give_the_same() -> None:
    maps, grids = torch.rand(2, 3, 5, 7), (Grid(8, 1.5), Grid(6))
    beside = resample(maps.contiguous(memory_format=torch.channels_last), grids, IMAGE, (40, 48))
    assert beside.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(beside, resample(maps, grids, IMAGE, (40, 48)), atol=1e-6)


def test_the_same_grid_changes_nothing() -> None:
    maps = torch.rand(2, 3, 4, 5)
    assert resample(maps, Grid(4), Grid(4), (4, 5)) is maps


def test_a_single_unit_fills_the_image() -> None:
    assert torch.equal(resample(torch.full((1, 1), 3.0), Grid(16), IMAGE, (5, 9)), torch.full((5, 9), 3.0))


@pytest.mark.usefixtures("real_encoder")
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_encoders_units_look_where_its_grids_say(layer: int) -> None:
    """The gradient of a unit lies around the pixel that it is centred on."""
    encoder, size = Encoder().eval(), 256
    for part in encoder.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.ones_(part.weight)
            part.weight.data /= part.weight[0].numel()
    encoder.network.maxpool = torch.nn.AvgPool2d(
        3, 2, 1
    )  # the greatest of equal values would pass its gradient to the first
    images = torch.full((1, 3, size, size), 0.9).requires_grad_()
    level = encoder.maps(images)[layer]
    stride, offset = encoder.grids((size, size))[layer][0]
    unit = round(size / 2 / stride)
    level[0, :, unit, unit].sum().backward()
    assert images.grad is not None
    weight = images.grad[0].abs().sum(dim=(0, 1))
    assert weight.nonzero().float().mean() == pytest.approx(offset + stride * unit)
