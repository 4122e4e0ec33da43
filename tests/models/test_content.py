import pytest
import torch
from torch import Tensor

from ccd_lightning.grids import IMAGE, Grid
from ccd_lightning.models.content import ALL, content_mask, counted, masked_mean, pixels_within, unless_whole, whole

BOXES = torch.tensor([[0, 0, 8, 12], [2, 0, 6, 12], [0, 5, 8, 7], [3, 4, 3, 9]])


def test_pixels_are_those_of_the_box() -> None:
    found = pixels_within(BOXES, (8, 12))
    for (top, left, bottom, right), mask in zip(BOXES.tolist(), found, strict=True):
        for row in range(8):
            for column in range(12):
                assert bool(mask[row, column]) == (top <= row < bottom and left <= column < right)


@pytest.mark.parametrize("grid", [(Grid(4), Grid(4)), (Grid(4, 1.5), Grid(4, 1.5)), (Grid(4, -3.0), Grid(4, 2.0))])
def test_positions_are_content_where_their_centres_are(grid: tuple[Grid, Grid]) -> None:
    boxes = torch.tensor([[0, 0, 16, 20], [5, 0, 11, 20], [0, 3, 16, 9]])
    found = content_mask(boxes, grid, (4, 5), (16, 20))
    for (top, left, bottom, right), mask in zip(boxes.tolist(), found, strict=True):
        for row in range(4):
            for column in range(5):
                down = max(0.0, grid[0].offset + 4 * row)  # a kernel that looks past the border sees the border
                across = max(0.0, grid[1].offset + 4 * column)
                inside = top <= down + 0.5 < bottom and left <= across + 0.5 < right
                assert bool(mask[row, column]) == inside


def test_of_a_thin_image_the_nearest_positions_are_content_and_of_none_no_position() -> None:
    boxes = torch.tensor([[17, 0, 18, 32], [5, 5, 5, 20], [5, 20, 9, 20]])
    found = content_mask(boxes, Grid(8, 3.5), (4, 4), (32, 32))
    assert found[0].nonzero().tolist() == [[2, column] for column in range(4)]
    assert not found[1:].any()


def test_whole_images_need_no_box() -> None:
    boxes = whole(3, (8, 12), torch.device("cpu"))
    assert boxes.tolist() == [[0, 0, 8, 12]] * 3
    assert unless_whole(boxes, (8, 12)) is None
    assert unless_whole(None, (8, 12)) is None
    assert unless_whole(boxes, (12, 12)) is boxes
    assert content_mask(boxes, Grid(4, 9.0), (2, 3), (8, 12)).all()


def test_means_over_content_are_those_of_loops() -> None:
    features, mask = torch.rand(3, 4, 5, 6), torch.rand(3, 5, 6) > 0.6
    mask[2] = False
    found = masked_mean(features, mask)
    for image in range(2):
        rows = [features[image, :, row, column] for row in range(5) for column in range(6) if mask[image, row, column]]
        assert torch.allclose(found[image], torch.stack(rows).mean(dim=0))
    assert not found[2].any()
    assert torch.equal(masked_mean(features, None), features.mean(dim=(2, 3)))


def test_positions_count_if_they_are_content_and_were_fitted() -> None:
    assert counted(None, None, Grid(4), (2, 2), (8, 8)) is ALL
    known = torch.tensor([[True, False], [True, True]])
    box = torch.tensor([[0, 0, 8, 8], [4, 0, 8, 8]])
    grid = Grid(4, 1.5)
    without: Tensor | None = counted(None, known, grid, (2, 2), (8, 8)).positions
    assert without is not None
    assert torch.equal(without[0], known)
    found = counted(box, known, grid, (2, 2), (8, 8))
    assert found.positions is not None
    assert found.pixels is not None
    assert found.positions.tolist() == [[[True, False], [True, True]], [[False, False], [True, True]]]
    expected = torch.ones(2, 8, 8, dtype=torch.bool)
    expected[0, :4, 4:] = False  # nearer to the position that nobody knows
    expected[1, :4] = False
    nearest_is_known = found.pixels[:, [0, 7]][:, :, [0, 7]]
    assert torch.equal(nearest_is_known, expected[:, [0, 7]][:, :, [0, 7]])
    assert not found.pixels[1, :4].any()
    assert torch.equal(pixels_within(box, (8, 8)) | found.pixels, pixels_within(box, (8, 8)))
    assert torch.equal(content_mask(box, IMAGE, (8, 8), (8, 8)), pixels_within(box, (8, 8)))
