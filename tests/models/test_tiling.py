import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ccd_lightning.errors import UserError
from ccd_lightning.models import tiling
from ccd_lightning.models.content import pixels_within, whole
from ccd_lightning.models.tiling import Axis, Tiling

CONTENT = torch.tensor([[0, 0, 50, 70], [12, 0, 38, 70], [0, 41, 50, 59]])


def pointwise(images: Tensor, content: Tensor | None) -> tuple[Tensor, Tensor]:
    """A detector whose map depends on nothing but the pixel."""
    maps = images[:, 0].square() + images[:, 1]
    if content is not None:
        maps = torch.where(pixels_within(content, images.shape[-2:]), maps, 0)
    return maps.amax(dim=(1, 2)), maps


@pytest.fixture(params=["streamed", "at once"])
def exporting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "at once":
        monkeypatch.setattr("torch.compiler.is_exporting", lambda: True)
    return bool(request.param == "at once")


@pytest.mark.parametrize("length", [16, 17, 23, 40, 64, 101])
@pytest.mark.parametrize("overlap", [0, 4, 8, 11])
def test_tiles_cover_an_axis_evenly_and_weights_add_up_to_one(length: int, overlap: int) -> None:
    axis = Axis(length, 16, overlap)
    assert axis.starts[0] == 0
    assert axis.starts[-1] == length - 16
    steps = [after - before for before, after in itertools.pairwise(axis.starts)]
    assert max(steps, default=0) - min(steps, default=0) <= 1
    assert all(step <= 16 - overlap for step in steps)
    fewer = len(axis.starts) - 1
    assert fewer == 0 or (length - 16) > (fewer - 1) * (16 - overlap)  # one tile less would not do
    total = torch.zeros(length)
    weights = torch.from_numpy(axis.weights())
    for start, own in zip(axis.starts, weights, strict=True):
        total[start : start + 16] += own
    assert torch.allclose(total, torch.ones(length))
    if len(axis.starts) > 1 and overlap:
        assert weights[0, -1] < weights[0, 8]  # falls towards the next tile
        assert weights[0, 0] == 1  # and not towards the image's border


@pytest.mark.parametrize("overlap", [0, 4, 8])
@pytest.mark.parametrize("content", [None, CONTENT])
@pytest.mark.usefixtures("exporting")
def test_a_pointwise_map_has_no_seams(overlap: int, content: Tensor | None) -> None:
    images = torch.rand(3, 3, 50, 70)
    scores, maps = Tiling((50, 70), 16, overlap).score(pointwise, images, content)
    expected_scores, expected = pointwise(images, content)
    assert torch.allclose(maps, expected, atol=1e-6)
    assert torch.equal(scores, expected_scores)


@pytest.mark.usefixtures("exporting")
def test_the_score_is_the_mean_of_the_highest_tiles() -> None:
    images = torch.rand(3, 3, 50, 70)
    parts = Tiling((50, 70), 16, 4)
    own: list[list[float]] = [[], [], []]
    for places, tiles, boxes in parts.tiles(images, CONTENT):
        for (image, _), score in zip(places, pointwise(tiles, boxes)[0].tolist(), strict=True):
            own[image].append(score)
    holding = [
        sum(row < bottom and top < row + 16 and column < right and left < column + 16 for row, column in parts.corners)
        for top, left, bottom, right in CONTENT.tolist()
    ]
    assert [len(scores) for scores in own] == holding == [24, 24, 12]
    scores, _ = Tiling((50, 70), 16, 4, top=0.2).score(pointwise, images, CONTENT)
    for found, tiles_scores, count in zip(scores.tolist(), own, (5, 5, 3), strict=True):
        assert found == pytest.approx(sum(sorted(tiles_scores)[-count:]) / count, rel=1e-5)


def test_no_more_than_a_few_tiles_are_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "CHUNK_PIXELS", 5 * 16 * 16)
    images, parts = torch.rand(2, 3, 50, 70), Tiling((50, 70), 16, 4)
    seen, counts = torch.zeros(2, 50, 70), []
    for places, tiles, boxes in parts.tiles(images, whole(2, (50, 70), torch.device("cpu"))):
        counts.append(len(tiles))
        assert boxes is None  # tiles that are content all over take the path of whole images
        for (image, tile), cut in zip(places, tiles, strict=True):
            row, column = parts.corners[tile]
            assert torch.equal(cut, images[image, :, row : row + 16, column : column + 16])
            seen[image, row : row + 16, column : column + 16] = 1
    assert counts == [5] * 9 + [3]
    assert seen.all()


def test_boxes_are_those_within_the_tiles() -> None:
    images, parts = torch.zeros(3, 3, 50, 70), Tiling((50, 70), 16, 4)
    inside = pixels_within(CONTENT, (50, 70))
    for places, tiles, boxes in parts.tiles(images, CONTENT):
        for number, (image, tile) in enumerate(places):
            row, column = parts.corners[tile]
            own = torch.ones(1, 16, 16) > 0 if boxes is None else pixels_within(boxes[number, None], (16, 16))
            assert torch.equal(own[0], inside[image, row : row + 16, column : column + 16])
        assert len(tiles) == len(places)


def test_a_tile_that_is_larger_than_the_image_is_refused() -> None:
    with pytest.raises(UserError, match="Images of 30 px are smaller than a tile of 32 px"):
        Tiling((40, 30), 32, 8)


def test_one_tile_is_the_image(exporting: bool) -> None:
    del exporting
    score: Callable[..., tuple[Tensor, Tensor]] = pointwise
    images = torch.rand(2, 3, 16, 16)
    found = Tiling((16, 16), 16, 4).score(score, images, None)
    assert torch.equal(found[1], pointwise(images, None)[1])
