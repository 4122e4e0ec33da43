"""Pseudo-lesions, as a strong family and to measure detectors by."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.ndimage import label
from torch import Tensor

from ccd_lightning.transforms.lesions import MIN_SIDE, Lesions, LesionSettings
from ccd_lightning.transforms.medmix import WIDE, MedMix, paste_lesions


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(count: int = 1, height: int = 64, width: int = 64, dtype: torch.dtype = torch.float32) -> Tensor:
    """Coloured images (N, 3, H, W) in [0.2, 0.8], or uint8, of which no two places look alike."""
    noise = torch.rand(count, 3, 8, 8, generator=seeded(9))
    images = 0.2 + 0.6 * torch.nn.functional.interpolate(noise, (height, width), mode="bilinear")
    return (images * 255).to(torch.uint8) if dtype == torch.uint8 else images.to(dtype)


def changed(before: Tensor, after: Tensor) -> Tensor:
    return (before != after).any(dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_as_many_lesions_as_the_index_says(dtype: torch.dtype) -> None:
    images = smooth(1, 128, 128, dtype).expand(240, -1, -1, -1)
    index = torch.arange(4).repeat(60)
    family = MedMix(size=(0.1, 0.12), strength=(1.0, 1.0))
    where = changed(images, family(images, index, seeded()))
    regions = torch.tensor([label(each.numpy())[1] for each in where])
    assert torch.equal(regions[index == 0], torch.zeros(60, dtype=torch.int64))
    assert set(regions[index == 1].tolist()) == {1}
    for number in (2, 3):  # some overlap
        counts = regions[index == number]
        assert counts.max() == number
        assert (counts == number).float().mean() > 0.7


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("shape", [(48, 48), (40, 72), (MIN_SIDE, MIN_SIDE)])
def test_grey_images_stay_grey(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    grey = smooth(40, *shape, dtype=dtype)[:, :1]
    pasted = MedMix()(grey.expand(-1, 3, -1, -1), torch.full((40,), 3), seeded())
    assert torch.equal(pasted[:, 0], pasted[:, 1])
    assert torch.equal(pasted[:, 0], pasted[:, 2])
    assert changed(grey, pasted[:, :1]).flatten(1).any(dim=1).all()
    if dtype == torch.float32:
        assert 0 <= pasted.min() < pasted.max() <= 1


def test_images_of_one_channel_are_those_of_three_equal_ones() -> None:
    grey = smooth(4)[:, :1]
    alone, three = (MedMix()(images, torch.arange(4), seeded()) for images in (grey, grey.expand(-1, 3, -1, -1)))
    assert torch.allclose(alone, three[:, :1], atol=1e-6)


def test_the_image_that_is_pasted_into_gives_the_patch() -> None:
    """Without distortion, at full strength, the middle of a lesion is found elsewhere in the image."""
    image = torch.rand(1, 3, 40, 40, generator=seeded(1)) * 0.8 + 0.1
    pasted, mask = paste_lesions(image, seeded(), settings=LesionSettings((0.4, 0.4), (1.0, 1.0), 0, 0, 0))
    rows, columns = mask[0].nonzero().float().mean(dim=0).round().long().tolist()
    middle = pasted[:, :, rows - 1 : rows + 2, columns - 1 : columns + 2]  # (1, 3, 3, 3)
    windows = image.unfold(2, 3, 1).unfold(3, 3, 1)  # (1, 3, H - 2, W - 2, 3, 3)
    distance = (windows - middle[:, :, None, None]).abs().amax(dim=(0, 1, 4, 5))
    assert distance.min() < 1e-5
    assert distance[rows - 1, columns - 1] > 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_lesion_is_visible_on_an_even_image(level: float, dtype: torch.dtype) -> None:
    """What is cut and what it covers are alike there, so nothing but the least difference is left."""
    images = torch.full((200, 3, 64, 64), level)
    images = (images * 255).to(dtype) if dtype == torch.uint8 else images
    settings = replace(WIDE, jitter=0.0, noise=0.0, warp=0.0)
    pasted, mask = paste_lesions(images, seeded(), settings=settings)
    difference = (pasted.double() - images.double()).abs().mean(dim=1) / (255 if dtype == torch.uint8 else 1)
    assert torch.equal(mask, difference > 0)
    most = difference.amax(dim=(1, 2))
    assert most.min() > 0.008  # opacity 0.15 of a difference of 0.1, at its edge where a lesion is tiny
    assert most.max() < 0.11


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_the_mask_is_what_has_changed(dtype: torch.dtype) -> None:
    images = smooth(300, 64, 80, dtype)
    pasted, mask = paste_lesions(images, seeded())
    assert torch.equal(mask, changed(images, pasted))
    assert pasted.dtype == dtype
    area = mask.sum(dim=(1, 2))
    assert area.min() >= 4
    assert area.max() <= round(64 / 3) ** 2 * torch.pi / 4 + 8
    difference = (pasted.double() - images.double()).abs().mean(dim=1) / (255 if dtype == torch.uint8 else 1)
    mean = (difference * mask).sum(dim=(1, 2)) / area
    assert mean.min() > 0.003
    assert mean.quantile(0.1) < 0.03 < 0.06 < mean.quantile(0.9)  # faint ones and strong ones
    assert area.float().quantile(0.1) < 30 < 150 < area.float().quantile(0.9)  # small ones and large ones


def test_lesions_are_anywhere_inside() -> None:
    images = smooth(1, 32, 48).expand(1500, -1, -1, -1)
    seen = paste_lesions(images, seeded(), settings=replace(WIDE, size=(0.2, 0.2)))[1].float().mean(dim=0)
    assert (seen > 0).float().mean() > 0.9  # not the corners: lesions are round
    left, right = seen[:, :24].mean(), seen[:, 24:].mean()
    upper, lower = seen[:16].mean(), seen[16:].mean()
    assert float(left) == pytest.approx(float(right), rel=0.15)
    assert float(upper) == pytest.approx(float(lower), rel=0.15)


def test_lesions_show_on_what_is_not_black() -> None:
    images = smooth(1).expand(300, -1, -1, -1).clone()
    images[..., :32] = 0
    pasted, mask = paste_lesions(images, seeded())
    within = (mask[..., 32:].sum(dim=(1, 2)) / mask.sum(dim=(1, 2))) > 0.4
    assert within.float().mean() > 0.97
    assert ((pasted[..., 36:].amin(dim=1) < 0.02) & mask[..., 36:]).float().mean() < 0.01  # nor are they black


def test_the_number_of_lesions_is_between_one_and_its_maximum() -> None:
    images = smooth(1, 96, 96).expand(300, -1, -1, -1)
    masks = paste_lesions(images, seeded(), most=3, settings=replace(WIDE, size=(0.1, 0.1)))[1]
    counts = torch.tensor([label(mask.numpy())[1] for mask in masks]).bincount(minlength=4) / 300
    assert counts[0] == 0
    assert counts[1:].min() > 0.2
    with pytest.raises(ValueError, match="most"):
        paste_lesions(images, seeded(), most=0)


def test_fisheye_and_wave_move_pixels_and_keep_rows() -> None:
    """A wave is horizontal: in an image whose rows are even, only a fisheye is seen."""
    rows = torch.linspace(0.1, 0.9, 64).view(1, 1, 64, 1).expand(200, 3, 64, 64)
    settings = LesionSettings((0.3, 0.3), (1.0, 1.0), 0, 0, 1)
    lesions = Lesions.draw(rows, 1, settings, seeded())
    bent, plain = lesions.cut(rows), replace(lesions, settings=replace(settings, warp=0)).cut(rows)
    moved = (bent - plain).abs().amax(dim=(1, 2, 3, 4))
    fisheye = lesions.uniform[:, 0, 9] < 0.5
    assert moved[~fisheye].max() < 1e-5
    assert (moved[fisheye] > 0.004).float().mean() > 0.8
    columns = rows.transpose(2, 3)
    waves = (lesions.cut(columns) - replace(lesions, settings=replace(settings, warp=0)).cut(columns)).abs()
    assert (waves[~fisheye].amax(dim=(1, 2, 3, 4)) > 0.004).float().mean() > 0.8


def test_of_one_image_every_copy_is_its_own_draw_and_the_generator_decides() -> None:
    images = smooth().expand(5, -1, -1, -1)
    pasted, masks = paste_lesions(images, seeded(3))
    assert len(masks.unique(dim=0)) == 5
    again, same = paste_lesions(images, seeded(3))
    assert torch.equal(pasted, again)
    assert torch.equal(masks, same)


def test_nothing_is_read_back_from_the_device() -> None:
    """The meta device has no values: what asks for one fails there."""
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8, device="meta")
    assert MedMix()(images, torch.arange(4, device="meta")).shape == images.shape


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"size": (0, 0.1)}, "size"),
        ({"size": (0.2, 0.1)}, "size"),
        ({"strength": (0.5, 1.5)}, "strength"),
        ({"jitter": 1.2}, "jitter"),
        ({"jitter": -0.2}, "jitter"),
        ({"noise": -1}, "noise"),
        ({"warp": -1}, "warp"),
    ],
)
@pytest.mark.parametrize("make", [MedMix, LesionSettings])
def test_impossible_settings_are_refused(make: Callable[..., Any], settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make(**settings)


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="4 px or more, got 3 x 9"):
        MedMix()(torch.zeros(1, 3, 3, 9), torch.ones(1))
