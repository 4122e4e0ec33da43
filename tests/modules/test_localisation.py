"""A spot in an image lights up where it is, with each detector and encoder.

Weights that are random look to one side as random weights do; where every kernel is its own mirror image, what is left
of a displacement comes from how maps are brought to the image.
"""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.igd.settings import Scale, WindowScale
from ccd_lightning.models.patch_features import FeatureConfig
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.modules.igd import IGD
from ccd_lightning.modules.padim import PaDiM
from tests import tiny

RADIUS = 3.0  # px, the spot's standard deviation


@pytest.fixture(params=["tiny", "real"])
def architecture(request: pytest.FixtureRequest) -> Iterator[None]:
    with tiny.real_encoder() if request.param == "real" else nullcontext():
        yield


def mirror_kernels(encoder: Encoder) -> None:
    for part in encoder.modules():
        if isinstance(part, nn.Conv2d):
            part.weight.data = (part.weight + part.weight.flip(-1)).div(2)
            part.weight.data = (part.weight + part.weight.flip(-2)).div(2)


def background(count: int, height: int, width: int) -> Tensor:
    return 0.4 + 0.05 * torch.randn(count, 3, height, width)


def padim(height: int, width: int, layers: tuple[int, ...] = (1, 2, 3), channels: int = 60) -> OneClassDetector:
    return fitted_padim(PaDiM(features=FeatureConfig(layers=layers), channels=channels), height, width)


def fitted_padim(detector: PaDiM, height: int, width: int) -> PaDiM:
    mirror_kernels(detector.eval().encoder)
    with torch.no_grad():
        for _ in range(8):
            detector.gaussian.update(detector.embed(background(16, height, width)))
    detector.gaussian.fit()
    return detector


class Grey(nn.Module):
    """Reconstructs every image as the background."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, latent: Tensor) -> Tensor:
        return torch.full((len(latent), 3, self.size, self.size), 0.4)


def igd(height: int, width: int, **weights: float) -> OneClassDetector:
    levels = (0.2, 0.3, 0.5)
    whole = Scale(height, 8, weight=weights["whole"], ssim_weights=levels)
    local = WindowScale(32, 8, weight=weights["local"], ssim_weights=levels)
    detector = IGD(global_scale=whole, local_scale=local, latent_size=16).eval()
    detector.whole.decoder, detector.local.decoder = Grey(height), Grey(32)  # type: ignore[assignment]
    detector.whole.gaussian.scale.fill_(1.0)
    detector.local.gaussian.scale.fill_(1.0)
    return detector


def displacements(detector: OneClassDetector, height: int, width: int, border: int = 4) -> Tensor:
    """Rows and columns from spots all over the image, some of them at each border, to the map's maximum, (N, 2)."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    torch.manual_seed(0)  # the same backgrounds, however many weights were drawn
    found = []
    for row in torch.linspace(border, height - 1 - border, 5).round().int().tolist():
        for column in torch.linspace(border, width - 1 - border, 5).round().int().tolist():
            distance = (rows - row).square() + (columns - column).square()
            image = background(1, height, width) + 0.6 * (-distance / (2 * RADIUS**2)).exp()
            with torch.no_grad():
                _, maps = detector(image)
            place = divmod(int(maps[0].argmax()), width)
            found.append((place[0] - row, place[1] - column))
    return torch.tensor(found).float()


def assert_in_place(found: Tensor, cell: int) -> None:
    assert found.abs().max() <= cell
    assert found.mean(dim=0).abs().max() < 0.3 * cell


@pytest.mark.usefixtures("architecture")
@pytest.mark.parametrize("size", [(64, 64), (128, 128), (100, 156)])
def test_padim_lights_up_where_the_spot_is(size: tuple[int, int]) -> None:
    assert_in_place(displacements(padim(*size), *size), cell=4)


@pytest.mark.usefixtures("architecture")
@pytest.mark.parametrize(("layers", "channels", "cell"), [((1,), 16, 4), ((2, 3), 40, 8)])
def test_padim_lights_up_where_the_spot_is_with_each_layer(layers: tuple[int, ...], channels: int, cell: int) -> None:
    assert_in_place(displacements(padim(96, 96, layers, channels), 96, 96), cell)


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("scale", ["whole", "local"])
def test_igd_lights_up_where_the_spot_is(scale: str, size: int) -> None:
    detector = igd(size, size, **{"whole": 0.0, "local": 0.0, scale: 1.0})
    assert_in_place(displacements(detector, size, size), cell=2)


@pytest.mark.usefixtures("architecture")
def test_maps_of_a_mirrored_image_are_mirrored_where_the_grid_is() -> None:
    """Pixels 0 to 64 are centred on the units of all layers, so that nothing but rounding is left."""
    detector = PaDiM(channels=16).eval()
    mirror_kernels(detector.encoder)
    images = torch.rand(2, 3, 65, 81)
    with torch.no_grad():
        embedded = detector.embed(images)
        for axis in (2, 3):
            mirrored = detector.embed(images.flip(axis))
            assert torch.allclose(mirrored.flip(axis), embedded, rtol=1e-3, atol=1e-4)
