"""Weak views never turn a strong augmentation's class into another one's."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from ccd_lightning.transforms.medmix import MedMix
from ccd_lightning.transforms.pretext import PretextViews
from ccd_lightning.transforms.strong import Cutout, Noise, Permutation, Rotation
from ccd_lightning.transforms.weak_draws import GEOMETRIC, WeakSettings

WEAK = ("cpu", "device")
SIDE = 32
ALONE = {
    "flip": 0.0,
    "jitter": 0.0,
    "grey": 0.0,
    "cutout_size": 0,
}  # no weak view but the crop, which is then all of the image
EVERY: dict[str, dict[str, Any]] = {
    "flip": {"flip": 0.5},
    "colour": {"jitter": 1.0},
    "grey": {"grey": 0.5},
    "hole": {"cutout_size": 8},
}


def symmetric() -> Tensor:
    """A coloured image (3, 32, 32), left-right symmetric, whose rows are all different."""
    rows = torch.linspace(60, 190, SIDE).to(torch.uint8)
    image = torch.stack([rows, rows.flip(0) // 2 + 60, rows // 2 + 40])[:, :, None].expand(-1, -1, SIDE).clone()
    image[:, 4:8, 12:20] += 30
    assert torch.equal(image, image.flip(-1))
    return image


def drawn(family: nn.Module, weak: Any, image: Tensor, change: dict[str, Any], count: int = 24) -> Tensor:
    """The views (N, K, 3, S, S) of an image in whole grey levels, in some epochs, without other weak views."""
    settings: dict[str, Any] = {"patch_size": 8, "pairs": 1, "cutout_size": change.get("cutout_size", 0)}
    settings["scale"] = change.get("scale", (1.0, 1.0))
    views = PretextViews(family, change.get("size", SIDE), augment_on=weak, **settings)
    own = {key: value for key, value in (ALONE | change).items() if getattr(views.settings, key)}  # not those left out
    views.settings = replace(views.settings, **own, ratio=(1.0, 1.0))
    batch = default_collate([{"image": image} | views(image, (0, epoch, 0)) for epoch in range(count)])
    made: Tensor = views.complete(batch)["views"].flatten(0, 1)
    return (made * 255 if made.is_floating_point() else made.float()).round()


def test_a_mirrored_rotation_keeps_its_class() -> None:
    """What was wrong: the mirror image of one class was the other's."""
    image = symmetric()[None]
    turned = Rotation()(image.expand(2, -1, -1, -1), torch.tensor([1, 3]))
    assert torch.equal(turned[0].flip(-1), turned[1])


@pytest.mark.parametrize("weak", WEAK)
def test_mirrors_do_not_change_what_a_symmetric_images_rotation_looks_like(weak: str) -> None:
    image = symmetric()
    made = drawn(Rotation(), weak, image, {"flip": 0.5})
    expected = Rotation()(image.expand(4, -1, -1, -1), torch.arange(4)).float()
    assert (made - expected).abs().max() <= 1


@pytest.mark.parametrize("weak", WEAK)
@pytest.mark.parametrize(
    ("family", "change"),
    [(family, EVERY[name]) for family in (Permutation, Rotation, Cutout, Noise, MedMix) for name in EVERY]
    # Of the others a crop may miss the seam, the hole or the lesion.
    + [(family, {"scale": (0.3, 1.0), "flip": 0.5}) for family in (Rotation, Noise)],
)
def test_no_view_of_a_class_is_one_of_another(family: type[nn.Module], change: dict[str, Any], weak: str) -> None:
    made = drawn(family(), weak, symmetric(), change).flatten(2)
    first, second = made.transpose(0, 1).unsqueeze(2), made.transpose(0, 1).unsqueeze(1)
    for one in range(4):
        for other in range(one + 1, 4):
            distance = (first[one] - second[other]).abs().amax(dim=-1)
            assert distance.min() > 8, (one, other)


@pytest.mark.parametrize("weak", WEAK)
def test_what_cutout_tells_its_classes_by_is_no_weak_view(weak: str) -> None:
    made = drawn(Cutout(), weak, symmetric(), {"cutout_size": 8}).amax(dim=2).flatten(2)
    assert [bool((views == 0).any()) for views in made.transpose(0, 1)] == [False, True, True, True]


class Marked(nn.Module):
    """Brightens a corner of class 1; the mirror image of that is brighter in the other corner."""

    count = 2
    weak_first: tuple[str, ...] = ("flip",)

    def forward(self, images: Tensor, index: Tensor, generator: torch.Generator | None = None) -> Tensor:
        made = images.clone()
        made[index.bool(), :, :4, :4] = 255
        return made


class Cropped(Marked):
    weak_first = GEOMETRIC


class Late(Marked):
    weak_first = ()


@pytest.mark.parametrize("weak", WEAK)
@pytest.mark.parametrize(("family", "kept"), [(Marked, True), (Cropped, True), (Late, False)])
def test_a_family_says_what_comes_before_it(family: type[nn.Module], kept: bool, weak: str) -> None:
    made = drawn(family(), weak, symmetric(), {"flip": 0.5})[:, 1]
    assert bool((made[:, :, 1, 1] == 255).all()) == kept
    assert bool((made[:, :, 1, -2] < 255).all()) == kept


@pytest.mark.parametrize("weak", WEAK)
def test_a_crop_that_comes_first_cuts_nothing_off_the_family(weak: str) -> None:
    views = drawn(Cropped(), weak, symmetric(), {"size": 16})[:, 1]
    assert views.shape[-1] == 16
    assert (views[:, :, :4, :4] == 255).all()


@pytest.mark.parametrize("weak", WEAK)
def test_mirroring_comes_first_where_a_family_says_nothing(weak: str) -> None:
    class Own(nn.Module):
        count = 2

        def forward(self, images: Tensor, index: Tensor, generator: torch.Generator | None = None) -> Tensor:
            made: Tensor = Late()(images, index, generator)
            return made

    assert (drawn(Own(), weak, symmetric(), {"flip": 0.5})[:, 1, :, 1, 1] == 255).all()


@pytest.mark.parametrize("weak", WEAK)
def test_what_a_family_draws_is_the_same_for_both_views(weak: str) -> None:
    class Grey(nn.Module):
        count = 2

        def forward(self, images: Tensor, index: Tensor, generator: torch.Generator | None = None) -> Tensor:
            tone = torch.randint(0, 250, (len(images), 1, 1, 1), generator=generator, device=images.device)
            return torch.zeros_like(images) + tone.to(torch.uint8)

    views = drawn(Grey(), weak, symmetric(), {"flip": 0.5}).view(-1, 2, 2, 3 * SIDE * SIDE)
    assert torch.equal(views[:, 0], views[:, 1])
    assert len(views[:, 0, :, 0].unique()) > 20


@pytest.mark.parametrize("weak", WEAK)
def test_a_family_leaves_weak_views_out(weak: str) -> None:
    class Plain(nn.Module):
        count, random = 1, False
        weak_omitted = ("flip", "colour", "grey", "hole")

        def forward(self, images: Tensor, index: Tensor, generator: torch.Generator | None = None) -> Tensor:
            return images

    views = PretextViews(Plain(), SIDE, (1.0, 1.0), 8, 1, cutout_size=9, augment_on=weak)  # type: ignore[arg-type]
    views.settings = replace(views.settings, ratio=(1.0, 1.0))
    image = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = default_collate([{"image": image} | views(image, (0, epoch, 0)) for epoch in range(12)])
    made = views.complete(batch)["views"]
    made = made * 255 if made.is_floating_point() else made.float()
    assert (made.round() - image).abs().max() <= 1


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (
            {"count": 0},
            r"data\.views\.family is Wrong, but must be a class whose count, now 0, ",
        ),
        ({"count": "4"}, "whose count, now 4"),
        ({}, "whose count, now None"),
        ({"count": 4, "weak_first": ("colour",)}, "whose weak_first names some of crop, flip, and not colour"),
        ({"count": 4, "weak_omitted": ("crop",)}, "whose weak_omitted names some of flip, .* and not crop"),
    ],
)
def test_impossible_attributes_are_refused(attributes: dict[str, Any], expected: str) -> None:
    family = type("Wrong", (nn.Module,), attributes)
    with pytest.raises(ValueError, match=expected):
        PretextViews(family())


def test_weak_augmentations_can_be_left_out_of_the_settings() -> None:
    settings = WeakSettings(16, (0.2, 1.0), cutout_size=8)
    assert settings.without(()) == settings
    assert settings.without(("hole", "colour")) == replace(settings, cutout_size=0, jitter=0.0)
