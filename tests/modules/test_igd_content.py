"""IGD leaves the margin out of errors, maps and windows; its encoders see it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ccd_lightning.losses.igd import reconstruction_errors
from ccd_lightning.models.content import mirrored_boxes, pixels_within, whole
from ccd_lightning.models.igd.settings import Scale, WindowScale
from ccd_lightning.modules.igd import IGD

BOXES = torch.tensor([[16, 0, 48, 64], [0, 20, 64, 44], [0, 0, 64, 64]])
LEVELS = (0.4, 0.6)


class Blind(torch.nn.Module):
    """Takes all images for the same."""

    def forward(self, latent: Tensor) -> Tensor:
        return latent

    def features(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 1)

    def normalise(self, images: Tensor) -> Tensor:
        return images


class Grey(torch.nn.Module):
    """Reconstructs every image as grey."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, latent: Tensor) -> Tensor:
        return torch.full((len(latent), 3, self.size, self.size), 0.5)


def detector(whole_weight: float, local_weight: float) -> IGD:
    made = IGD(
        global_scale=Scale(64, 8, weight=whole_weight, ssim_weights=LEVELS, ssim_window=3),
        local_scale=WindowScale(16, 8, weight=local_weight, ssim_weights=LEVELS, stride=8),
        latent_size=16,
    ).eval()
    for scale, size in ((made.whole, 64), (made.local, 16)):
        scale.decoder = Grey(size)  # type: ignore[assignment]
        scale.latent = torch.nn.Identity()  # type: ignore[assignment]
        scale.gaussian.centre, scale.gaussian.scale = torch.zeros(1), torch.tensor(1.0)
    made.encoder = made.local_encoder = Blind()  # type: ignore[assignment]
    return made


@torch.no_grad()
def test_the_whole_image_is_compared_within_its_content() -> None:
    made, images = detector(1.0, 0.0), torch.rand(3, 3, 64, 64)
    inside = pixels_within(BOXES, (64, 64))
    painted = torch.where(inside[:, None], images, 0.9)
    scores, maps = made(images, BOXES)
    again = made(painted, BOXES)
    assert torch.equal(scores, again[0])
    assert torch.equal(maps, again[1])
    assert not maps[~inside].any()
    assert torch.allclose(maps[2], made(images[2:])[1][0], atol=1e-6)


@torch.no_grad()
def test_no_window_in_the_margin_has_a_score() -> None:
    made, images = detector(0.0, 1.0), 0.5 + 0.1 * torch.rand(3, 3, 64, 64)
    inside = pixels_within(BOXES, (64, 64))
    scores, maps = made(images, BOXES)
    images[0, :, :8] = images[1, :, :, :8] = 1.0  # far enough that no window with its middle in the content sees it
    again = made(images, BOXES)
    assert torch.equal(again[0][:2], scores[:2])
    assert made(images)[0][0] > scores[0]
    assert not maps[~inside].any()
    views = made.local.estimation_views(images, BOXES)
    middles = [4 + 8 * step + 3.5 for step in range(7)]
    expected = sum(
        top - 0.5 <= row < bottom - 0.5 and left - 0.5 <= column < right - 0.5
        for top, left, bottom, right in BOXES.tolist()
        for row in middles
        for column in middles
    )
    assert len(views) == expected < 3 * 49


def test_training_draws_windows_of_the_content() -> None:
    made, images = detector(0.0, 1.0), torch.zeros(3, 3, 64, 64)
    images[pixels_within(BOXES, (64, 64))[:, None].expand(-1, 3, -1, -1)] = 1.0
    rng, own = np.random.default_rng(0), torch.arange(3)
    views = made.local.training_views(images, rng, 3, own, BOXES)
    assert len(views) == 3 * 16
    assert (views.mean(dim=(1, 2, 3)) >= 0.5).all()  # half of each, or more, is content
    without = made.local.training_views(images, np.random.default_rng(0), 3, own)
    everything = made.local.training_views(images, np.random.default_rng(0), 3, own, whole(3, (64, 64), own.device))
    assert torch.equal(without, everything)


@pytest.mark.parametrize("structure", [0.0, 0.5, 1.0])
def test_errors_within_all_of_the_image_are_those_of_loops(structure: float) -> None:
    first, second = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    mask = torch.ones(2, 16, 16, dtype=torch.bool)
    mask[0, 8:] = False
    errors, _ = reconstruction_errors(first, second, 1, LEVELS, structure, mask=mask)
    half = first[:1, :, :8], second[:1, :, :8]
    alone, _ = reconstruction_errors(*half, 1, LEVELS, structure)  # windows of a pixel see nothing beyond the mask
    assert torch.allclose(errors[0], alone[0], atol=1e-6)
    assert torch.allclose(errors[1], reconstruction_errors(first, second, 1, LEVELS, structure)[0][1], atol=1e-6)


def test_boxes_are_mirrored_with_their_images() -> None:
    mirrored = mirrored_boxes(BOXES, 64)
    assert torch.equal(pixels_within(mirrored, (64, 64)), pixels_within(BOXES, (64, 64)).flip(-1))
