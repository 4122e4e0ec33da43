import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from ccd_lightning.errors import UserError
from ccd_lightning.models.anomaly_map import check_scoring, image_scores, smooth


@pytest.mark.parametrize("sigma", [0.5, 2.0, 4.0])
def test_smoothing_is_a_gaussian_blur(sigma: float) -> None:
    maps, kernel = torch.rand(2, 40, 50), 2 * round(4 * sigma) + 1
    expected = gaussian_blur(maps[:, None], [kernel, kernel], [sigma, sigma])[:, 0]
    assert torch.allclose(smooth(maps, sigma), expected, atol=1e-6)


def test_smoothing_by_nothing_changes_nothing_and_small_maps_are_smoothed() -> None:
    maps = torch.rand(2, 6, 7)
    assert torch.equal(smooth(maps, 0), maps)
    assert smooth(maps, 4.0).shape == maps.shape


def test_scores_are_means_of_the_highest_values() -> None:
    maps = torch.rand(3, 5, 4)
    ordered = maps.flatten(1).sort(dim=1, descending=True).values
    for top, count in ((0.0, 1), (0.05, 1), (0.1, 2), (0.5, 10), (1.0, 20)):
        assert torch.allclose(image_scores(maps, top), ordered[:, :count].mean(dim=1))


@pytest.mark.parametrize(("blur", "top", "key"), [(-1.0, 0.0, "blur"), (0.0, -0.1, "top"), (0.0, 1.1, "top")])
def test_options_that_cannot_be(blur: float, top: float, key: str) -> None:
    with pytest.raises(UserError, match=rf"model\.{key} is"):
        check_scoring(blur, top)
