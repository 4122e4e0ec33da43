import pytest
import torch
from torch.nn import functional

from ccd_lightning.errors import UserError
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.patch_features import FeatureConfig, PatchFeatures

pytestmark = pytest.mark.usefixtures("real_encoder")


def test_each_level_is_averaged_brought_to_the_positions_and_normalised() -> None:
    torch.manual_seed(0)
    encoder, images = Encoder().eval(), torch.rand(2, 3, 64, 64)
    features = PatchFeatures(encoder, FeatureConfig(layers=(1, 2), positions=8, window=3, normalise=True))
    with torch.no_grad():
        found, levels = features(images), encoder.maps(images, (1, 2))
    assert found.shape == (2, features.channels, 8, 8)
    # Positions lie in the middle of 8 px, units of stride 8 at their beginning: halfway between two of them.
    averaged = functional.avg_pool2d(levels[1], 3, 1, 1, count_include_pad=False)
    share = 3.5 / 8
    row = torch.lerp(averaged[:, :, 3], averaged[:, :, 4], share)
    expected = torch.lerp(row[:, :, 3], row[:, :, 4], share)
    assert torch.allclose(found[:, 64:, 3, 3], functional.normalize(expected) * 128**0.5, atol=1e-4)
    for part in torch.split(found, [64, 128], dim=1):
        assert torch.allclose(part.square().mean(dim=1), torch.ones(2, 8, 8), atol=1e-4)


def test_by_default_levels_are_unchanged() -> None:
    encoder, images = Encoder().eval(), torch.rand(1, 3, 64, 64)
    features = PatchFeatures(encoder, FeatureConfig())
    with torch.no_grad():
        assert torch.equal(features(images)[:, :64], encoder.maps(images)[0])
    assert features.positions(66, 64) == (17, 16)
    assert features.layers == (1, 2, 3)
    assert features.settings() == {"layers": (1, 2, 3), "positions": 0, "window": 1, "normalise": False}


@pytest.mark.parametrize(
    ("size", "counts"), [((64, 64), (5, 5)), ((72, 64), (6, 5)), ((75, 100), (5, 7)), ((96, 200), (5, 10))]
)
def test_positions_are_the_middles_of_about_square_cells(size: tuple[int, int], counts: tuple[int, int]) -> None:
    encoder = Encoder().eval()
    features = PatchFeatures(encoder, FeatureConfig(positions=5))
    with torch.no_grad():
        assert features(torch.rand(1, 3, *size)).shape[-2:] == counts == features.positions(*size)
    for length, count, grid in zip(size, counts, features.grid(*size), strict=True):
        edges = [grid.offset + (index - 0.5) * grid.stride + 0.5 for index in (0, count)]
        assert edges == pytest.approx([0, length])


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"positions": -1}, "positions"),
        ({"window": 2}, "window"),
        ({"window": 0}, "window"),
        ({"layers": (9,)}, "layers"),
    ],
)
def test_options_out_of_range_are_refused(values: dict[str, object], key: str) -> None:
    with pytest.raises(UserError, match=rf"model\.features\.{key} is"):
        PatchFeatures(Encoder(), values)
