from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from albumentations.augmentations.crops import functional as crops
from albumentations.augmentations.geometric import functional as geometric
from albumentations.augmentations.pixel import functional as pixel
from torchvision.transforms.v2 import functional as reference

from ccd_lightning.transforms import weak_batched
from ccd_lightning.transforms.weak_batched import crop_and_resize, cut_hole, to_grey, weak_views
from ccd_lightning.transforms.weak_draws import UNCHANGED, VIEW, WeakSettings, draw_views

SETTINGS = WeakSettings(24, (0.2, 1.0), cutout_size=10)
LEVEL = 1.5 / 255  # albumentations rounds to whole grey levels, once on the way in and once on the way out
ODD_COLOURS = [[0, 0, 0], [255, 255, 255], [90, 90, 90], [255, 0, 0], [0, 255, 255], [255, 0, 255], [200, 200, 7]]


def photos(count: int, height: int = 40, width: int = 40) -> torch.Tensor:
    """Images (count, 3, height, width) uint8: soft, noisy, and with every special case of a colour."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 6, 6, generator=generator) * 255
    images = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    images[::2] += 40 * torch.randn(images[::2].shape, generator=generator)
    images = images.clamp(0, 255).to(torch.uint8)
    images[:, :, 0, : len(ODD_COLOURS)] = torch.tensor(ODD_COLOURS, dtype=torch.uint8).T
    return images


def array(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.astype(np.float32) / (255 if image.dtype == np.uint8 else 1)).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (weak_batched.adjust_brightness, pixel.adjust_brightness_torchvision),
        (weak_batched.adjust_contrast, pixel.adjust_contrast_torchvision),
        (weak_batched.adjust_saturation, pixel.adjust_saturation_torchvision),
        (lambda images, _: to_grey(images), lambda image, _: pixel.to_gray(image, 3, "weighted_average")),
    ],
)
def test_colours_are_albumentations(ours: Callable[..., torch.Tensor], theirs: Callable[..., np.ndarray]) -> None:
    images, factors = photos(8), torch.tensor([0.6, 0.75, 0.9, 0.99, 1.01, 1.1, 1.25, 1.4])
    changed = ours(images.float() / 255, factors.view(-1, 1, 1, 1))
    for image, factor, result in zip(images, factors.tolist(), changed, strict=True):
        assert (tensor(theirs(array(image), factor)) - result).abs().max() < LEVEL


def test_hue_is_albumentations_and_torchvisions() -> None:
    """On floats: on uint8 albumentations knows hues by steps of two degrees only."""
    images, turns = photos(8).float() / 255, torch.tensor([-0.5, -0.1, -0.07, -0.01, 0.01, 0.05, 0.1, 0.5])
    changed = weak_batched.adjust_hue(images, turns.view(-1, 1, 1, 1))
    for image, turn, result in zip(images, turns.tolist(), changed, strict=True):
        assert (tensor(pixel.adjust_hue_torchvision(array(image), turn)) - result).abs().max() < 1e-4
        assert (reference.adjust_hue(image, turn) - result).abs().max() < 1e-4
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    assert torch.allclose(weak_batched.adjust_hue(red, torch.tensor(1 / 3)).flatten(), torch.tensor([0.0, 1, 0]))


@pytest.mark.parametrize("size", [7, 24, 64])
def test_crops_are_albumentations(size: int) -> None:
    images = photos(3, 40, 56)
    boxes = [[0, 0, 40, 56], [0, 3, 9, 31], [11, 0, 29, 24], [20, 40, 1, 16], [39, 55, 1, 1], [8, 8, 24, 24]]
    box = torch.tensor(boxes, dtype=torch.float32).expand(3, -1, -1)
    flip = torch.tensor([[0.0, 1, 0, 1, 0, 1]] * 2 + [[1.0, 0, 1, 0, 1, 0]])
    made = crop_and_resize(images, box, flip, size)
    assert made.shape == (3, 6, 3, size, size)
    for place, image in enumerate(images):
        for number, (top, left, height, width) in enumerate(boxes):
            crop = crops.crop(array(image), left, top, left + width, top + height)
            expected = tensor(geometric.resize(crop, (size, size), 1))
            expected = expected.flip(-1) if flip[place, number] else expected
            assert (made[place, number] - expected).abs().max() < LEVEL


def test_many_images_are_cropped_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    images, views = photos(5), draw_views(np.random.default_rng(0), 10, 40, 40, SETTINGS).reshape(5, 2)
    whole = weak_views(images, views, 24)
    monkeypatch.setattr(weak_batched, "PART", 2)
    assert torch.equal(weak_views(images, views, 24), whole)


def test_holes_are_where_they_should_be() -> None:
    holes = torch.tensor([[0.0, 0, 0, 0], [1, 2, 3, 4], [0, 6, 8, 2]])
    expected = torch.ones(3, 8, 8)
    expected[1, 1:4, 2:6] = 0
    expected[2, 0:8, 6:8] = 0
    assert torch.equal(cut_hole(torch.ones(3, 3, 8, 8), holes), expected[:, None].expand(-1, 3, -1, -1))


def one_by_one(image: torch.Tensor, view: np.void, size: int) -> torch.Tensor:
    """A view made of torchvision's operations."""
    top, left, height, width = (int(number) for number in view["box"])
    options = {"size": [size, size], "antialias": False}
    made: torch.Tensor = reference.resized_crop(image.float() / 255, top, left, height, width, **options)
    made = reference.horizontal_flip(made) if view["flip"] else made
    steps = (
        reference.adjust_brightness,
        reference.adjust_contrast,
        reference.adjust_saturation,
        reference.adjust_hue,
    )
    for number in view["order"]:
        made = made if number == UNCHANGED else steps[number](made, float(view["factors"][number]))
    made = reference.rgb_to_grayscale(made, 3) if view["grey"] else made
    top, left, height, width = (int(number) for number in view["hole"])
    made = made.clone()
    made[:, top : top + height, left : left + width] = 0
    return made


def test_whole_views_are_torchvisions() -> None:
    images = photos(16)
    views = draw_views(np.random.default_rng(0), 64, 40, 40, SETTINGS).reshape(16, 4)
    assert len(np.unique(views["order"].reshape(-1, 4), axis=0)) > 20
    made = weak_views(images, views, 24)
    expected = [
        torch.stack([one_by_one(image, view, 24) for view in row]) for image, row in zip(images, views, strict=True)
    ]
    assert (made - torch.stack(expected)).abs().max() < 0.5 / 255


@pytest.mark.parametrize(
    "change", [{}, {"cutout_size": 0}, {"grey": 0.0}, {"jitter": 0.0}, {"grey": 1.0, "jitter": 1.0}]
)
def test_augmentations_may_apply_to_no_view_or_to_all(change: dict[str, float]) -> None:
    images = photos(2)
    settings = replace(SETTINGS, **change)  # type: ignore[arg-type]
    views = draw_views(np.random.default_rng(0), 4, 40, 40, settings).reshape(2, 2)
    made = weak_views(images, views, 24)
    assert made.shape == (2, 2, 3, 24, 24)
    assert made.dtype == torch.float32
    assert 0 <= made.min() < made.max() <= 1
    assert views.dtype == VIEW


def test_nothing_is_read_back_from_the_device() -> None:
    """The meta device has no values: what asks for one fails there."""
    views = draw_views(np.random.default_rng(0), 64, 40, 40, SETTINGS).reshape(16, 4)
    assert weak_views(photos(16).to("meta"), views, 24).shape == (16, 4, 3, 24, 24)
