"""Trained units look where their grids say, which is not always the middle of their fields."""

import pytest
import torch
from skimage import data

from ccd_lightning.encoder_config import EncoderConfig, initialise_encoder
from ccd_lightning.models.encoder import Encoder

SIZE = 192


def displacements(encoder: Encoder) -> torch.Tensor:
    """Rows and columns from blobs in photographs to the centre of what they change, per blob and level, (N, L, 2)."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    grids = encoder.grids((SIZE, SIZE))
    found: list[list[list[float]]] = []
    for name in ("astronaut", "coffee", "chelsea"):
        photograph = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float() / 255
        image = torch.nn.functional.interpolate(photograph, (SIZE, SIZE), mode="bilinear")
        for _ in range(8):
            row, column = torch.randint(64, SIZE - 64, (2,), generator=generator).tolist()
            blob = (-((rows - row).square() + (columns - column).square()) / 50).exp()
            colour = torch.rand(1, 3, 1, 1, generator=generator)
            with torch.no_grad():
                pairs = zip(encoder.maps(image), encoder.maps(torch.lerp(image, colour, blob)), strict=True)
                changes = [(after - before).square().sum(dim=1)[0] for before, after in pairs]
            found.append([])
            for change, (down, across) in zip(changes, grids, strict=True):
                units = torch.arange(change.shape[0]).float()
                y, x = (change.sum(dim=axis) @ units / change.sum() for axis in (1, 0))
                place = down.offset + down.stride * float(y), across.offset + across.stride * float(x)
                found[-1].append([place[0] - row, place[1] - column])
    return torch.tensor(found)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite1"])
def test_units_with_imagenet_weights_respond_to_blobs_at_their_positions(name: str) -> None:
    encoder = Encoder(name).eval()
    middles = encoder.grids((SIZE, SIZE))
    initialise_encoder(encoder, EncoderConfig(weights="imagenet"))
    assert encoder.grids((SIZE, SIZE)) != middles  # they are those of the weights
    mean = displacements(encoder).mean(dim=0)
    strides = torch.tensor([[encoder.strides[level]] for level in encoder.default_levels])
    assert (mean.abs() < 0.15 * strides).all()
