"""What lies outside of an image's content counts nowhere.

The encoder is one whose features are local, and boxes end where its cells do. So what is painted into margins must not
change anything at all; of other encoders, it changes features near the border, which see the margin.
"""

import pytest
import torch
from torch import Tensor

from ccd_lightning.models.content import pixels_within, whole
from ccd_lightning.modules.statistics import StatisticsDetector
from tests.modules.local_features import MADE

SIDE = 32
WIDE, TALL, ALL = [8, 0, 24, 32], [0, 12, 32, 20], [0, 0, 32, 32]


def boxes(count: int) -> Tensor:
    return torch.tensor([(WIDE, TALL, WIDE, ALL)[number % 4] for number in range(count)])


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def painted(pixels: Tensor, content: Tensor, seed: int) -> Tensor:
    margin = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(seed)) * 5
    return torch.where(pixels_within(content, (SIDE, SIDE))[:, None], pixels, margin)


@torch.no_grad()
def fitted(detector: StatisticsDetector, pixels: Tensor, content: Tensor | None) -> StatisticsDetector:
    for start in range(0, len(pixels), 7):
        some = slice(start, start + 7)
        detector.collect(pixels[some], None if content is None else content[some])
    detector.fit_statistics()
    return detector


@pytest.fixture(params=MADE)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@torch.no_grad()
def test_pixels_of_margins_change_nothing(name: str) -> None:
    train, test, shapes = images(24), images(8, seed=1), boxes(24)
    found = []
    for seed in (2, 3):
        detector = fitted(MADE[name](), painted(train, shapes, seed), shapes)
        found.append(detector(painted(test, shapes[:8], seed + 10), shapes[:8]))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    scores, maps = found[0]
    assert scores.min() > 0
    inside = pixels_within(shapes[:8], (SIDE, SIDE))
    assert not maps[~inside].any()
    assert (maps.flatten(1).amax(dim=1) > 0).all()


@torch.no_grad()
def test_letterboxed_images_score_as_their_content_alone(name: str) -> None:
    train, test = images(24), images(6, seed=1)
    box = torch.tensor([WIDE])
    letterboxed = fitted(MADE[name](), train, box.expand(24, -1))
    alone = fitted(MADE[name](), train[:, :, 8:24], None)
    scores, maps = letterboxed(painted(test, box.expand(6, -1), 5), box.expand(6, -1))
    expected, expected_maps = alone(test[:, :, 8:24])
    if name != "padim":  # whose scores are those of blurred maps, and the blur is by the working image's side
        assert torch.allclose(scores, expected, rtol=1e-4)
    if letterboxed.hparams["blur"] == 0:
        assert torch.allclose(maps[:, 8:24], expected_maps, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_boxes_of_whole_images_change_nothing(name: str) -> None:
    train, test = images(24), images(6, seed=1)
    with_boxes = fitted(MADE[name](), train, whole(24, (SIDE, SIDE), torch.device("cpu")))
    without = fitted(MADE[name](), train, None)
    expected = without(test)
    for content in (None, whole(6, (SIDE, SIDE), torch.device("cpu"))):
        found = without(test, content)
        assert torch.equal(found[0], expected[0])  # to the bit: nothing is left out
        assert torch.equal(found[1], expected[1])
    masked = with_boxes.score(test, whole(6, (SIDE, SIDE), torch.device("cpu")))
    assert torch.allclose(masked[0], expected[0], rtol=1e-4)
    assert torch.allclose(masked[1], expected[1], rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_scores_do_not_depend_on_the_shapes_in_the_batch(name: str) -> None:
    train, test, shapes = images(24), images(8, seed=1), boxes(24)
    detector = fitted(MADE[name](), train, shapes)
    scores, maps = detector(test, shapes[:8])
    for number in range(8):
        one = slice(number, number + 1)
        score, surface = detector(test[one], shapes[one])
        assert torch.allclose(score, scores[one], rtol=1e-4)
        assert torch.allclose(surface, maps[one], rtol=1e-3, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["padim", "neighbours, reweighted"])
def test_maps_are_zero_where_no_normal_image_had_content(name: str) -> None:
    """Wide and tall images make a cross; a square one is scored by what of it lies in there."""
    shapes = torch.tensor([WIDE, TALL]).repeat(12, 1)
    detector = fitted(MADE[name](), images(24), shapes)
    test = images(1, seed=1)
    score, maps = detector(test)
    seen = pixels_within(torch.tensor([WIDE, TALL]), (SIDE, SIDE)).any(dim=0)
    assert (maps[0, :4, :4] == 0).all()
    assert (maps[0][seen] > 0).all()
    test[:, :, ~seen] = 30.0
    again, _ = detector(test)
    assert torch.equal(score, again)
    before = detector.state_dict()
    loaded = MADE[name]()
    loaded.load_state_dict(before)
    assert torch.equal(loaded(test)[0], again)
