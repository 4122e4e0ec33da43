import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from ccd_lightning.errors import UserError
from ccd_lightning.grids import Grid, multiplied
from ccd_lightning.models.anomaly_map import blurring, check_scoring, image_scores, to_image
from ccd_lightning.models.content import counted


@pytest.mark.parametrize("sigma", [0.5, 2.0, 4.0])
def test_smoothing_is_a_gaussian_blur(sigma: float) -> None:
    maps, kernel = torch.rand(2, 40, 50), 2 * round(4 * sigma) + 1
    expected = gaussian_blur(maps[:, None], [kernel, kernel], [sigma, sigma])[:, 0]
    found = multiplied(maps, (blurring(40, sigma), blurring(50, sigma)))
    assert torch.allclose(found, expected, atol=1e-6)


def test_smoothing_by_nothing_changes_nothing_and_small_maps_are_smoothed() -> None:
    assert blurring(6, 0.0) is None
    matrix = blurring(6, 4.0)
    assert matrix is not None
    assert (matrix > 0).all()
    assert matrix.sum(axis=1) == pytest.approx(1)


def test_scores_are_means_of_the_highest_values() -> None:
    maps = torch.rand(3, 5, 4)
    ordered = maps.flatten(1).sort(dim=1, descending=True).values
    for top, count in ((0.0, 1), (0.05, 1), (0.1, 2), (0.5, 10), (1.0, 20)):
        assert torch.allclose(image_scores(maps, top), ordered[:, :count].mean(dim=1))


@pytest.mark.parametrize(("blur", "top", "key"), [(-1.0, 0.0, "blur"), (0.0, -0.1, "top"), (0.0, 1.1, "top")])
def test_options_out_of_range_are_refused(blur: float, top: float, key: str) -> None:
    with pytest.raises(UserError, match=rf"model\.{key} is"):
        check_scoring(blur, top)


CONTENT = torch.tensor([[0, 0, 32, 48], [8, 0, 24, 48], [0, 12, 32, 40]])


@pytest.mark.parametrize("blur", [0.0, 16.0])
def test_values_outside_the_content_reach_no_pixel_of_the_map(blur: float) -> None:
    grid, distances = Grid(4, 1.5), torch.rand(3, 8, 12)
    count = counted(CONTENT, None, grid, (8, 12), (32, 48))
    assert count.positions is not None
    painted = torch.where(count.positions, distances, 100 * torch.rand(3, 8, 12))
    maps = to_image(distances, grid, 32, 48, blur, count)
    assert torch.equal(to_image(painted, grid, 32, 48, blur, count), maps)
    assert torch.allclose(maps[0], to_image(distances[:1], grid, 32, 48, blur)[0], atol=1e-6)  # all of it is content
    assert count.pixels is not None
    assert not maps[~count.pixels].any()
    assert (maps[count.pixels] > 0).all()


def test_without_blur_margins_are_as_if_the_image_ended_there() -> None:
    grid, distances = Grid(4, 1.5), torch.rand(1, 8, 12)
    box = torch.tensor([[8, 16, 24, 48]])
    maps = to_image(distances, grid, 32, 48, 0, counted(box, None, grid, (8, 12), (32, 48)))
    alone = to_image(distances[:, 2:6, 4:], grid, 16, 32, 0)
    assert torch.allclose(maps[:, 8:24, 16:], alone, atol=1e-6)


@pytest.mark.parametrize("top", [0.0, 0.05, 0.1, 0.5, 1.0])
def test_scores_are_those_of_the_values_that_count(top: float) -> None:
    maps, mask = torch.rand(4, 10, 10), torch.rand(4, 10, 10) > 0.4
    mask[0] = True
    mask[3] = False
    found = image_scores(maps, top, mask)
    for image in range(3):
        assert torch.allclose(found[image], image_scores(maps[image][mask[image]][None, None], top)[0])
    assert found[3] == 0
