from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ccd_lightning.transforms.medmix import MedMix
from ccd_lightning.transforms.strong import Cutout, Noise, Permutation, Rotation

FAMILIES = (Permutation, Rotation, Cutout, Noise, MedMix)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_permutation_has_the_reference_values(golden: dict[str, Any]) -> None:
    shape = golden["permutation"]["input_shape"]
    images = torch.arange(torch.tensor(shape).prod().item()).view(shape)
    for index, expected in golden["permutation"]["output"].items():
        swapped = Permutation()(images, torch.full((shape[0],), int(index)))
        assert torch.equal(swapped, torch.tensor(expected).view(shape))


def test_every_image_gets_the_permutation_of_its_index() -> None:
    images = torch.rand(4, 3, 6, 8)
    index = torch.tensor([2, 0, 3, 1])
    together = Permutation()(images, index)
    for place in range(4):
        assert torch.equal(together[place], Permutation()(images[place : place + 1], index[place : place + 1])[0])
    assert torch.equal(together[1], images[1])


def test_odd_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        Permutation()(torch.zeros(1, 3, 5, 4), torch.zeros(1))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [torch.float32, torch.uint8])
def test_every_family_keeps_shape_type_and_index_0(family: type[torch.nn.Module], kind: torch.dtype) -> None:
    images = (torch.rand(8, 3, 16, 16, generator=seeded()) * (255 if kind == torch.uint8 else 1)).to(kind)
    index = torch.arange(8) % 4
    before = images.clone()
    changed = family()(images, index, seeded(1))
    assert torch.equal(images, before)
    assert changed.shape == images.shape
    assert changed.dtype == kind
    assert [bool(torch.equal(a, b)) for a, b in zip(changed, images, strict=True)] == [True, False, False, False] * 2


@pytest.mark.parametrize("family", FAMILIES)
def test_randomness_comes_from_the_generator_only(family: type[torch.nn.Module]) -> None:
    images, index = torch.rand(6, 3, 16, 16), torch.tensor([1, 2, 3, 1, 2, 3])
    torch.manual_seed(0)
    first = family()(images, index, seeded(5))
    torch.manual_seed(1)
    assert torch.equal(first, family()(images, index, seeded(5)))
    if family in (Cutout, Noise, MedMix):
        assert not torch.equal(first, family()(images, index, seeded(6)))


def test_rotation_turns_counter_clockwise() -> None:
    image = torch.arange(9.0).view(1, 1, 3, 3)
    for quarters in range(4):
        expected = np.rot90(image[0, 0].numpy(), quarters)
        assert np.array_equal(Rotation()(image, torch.tensor([quarters]))[0, 0].numpy(), expected)
    with pytest.raises(ValueError, match="square"):
        Rotation()(torch.zeros(1, 3, 4, 6), torch.zeros(1))


def test_cutout_cuts_as_many_squares_as_the_index_says() -> None:
    images, index = torch.ones(400, 3, 20, 24), torch.arange(4).repeat(100)
    holes = 1 - Cutout(0.3)(images, index, seeded())
    assert torch.equal(holes[:, 0], holes[:, 2])
    area = holes[:, 0].sum(dim=(1, 2))
    assert set(area[index == 1].tolist()) == {36.0}  # 6 x 6, never cut off by the border
    assert area[index == 3].max() <= 3 * 36
    assert 1.5 * 36 < area[index == 2].mean() < 2 * 36
    anywhere = holes[index == 1, 0].mean(dim=0)
    assert all(edge.any() for edge in (anywhere[0], anywhere[-1], anywhere[:, 0], anywhere[:, -1]))


def test_noise_has_the_moments_it_promises() -> None:
    grey, index = torch.full((4, 3, 200, 200), 0.5), torch.arange(4)
    _, gaussian, speckle, grains = Noise(variance=0.01, amount=0.1)(grey, index, seeded())
    assert gaussian.mean().item() == pytest.approx(0.5, abs=0.002)
    assert gaussian.var().item() == pytest.approx(0.01, rel=0.03)
    assert speckle.var().item() == pytest.approx(0.01 * 0.5**2, rel=0.03)
    for extreme in (0, 1):
        assert (grains == extreme).float().mean().item() == pytest.approx(0.05, abs=0.005)
    assert torch.equal(grains[0] == 0.5, grains[2] == 0.5)  # a grain is black or white, not coloured
    assert Noise(variance=4.0)(grey, index, seeded()).aminmax() == (0.0, 1.0)


@pytest.mark.parametrize(
    ("make", "expected"),
    [(lambda: Cutout(0), "side"), (lambda: Noise(-1), "variance"), (lambda: Noise(amount=2), "amount")],
)
def test_parameters_out_of_range_are_refused(make: Callable[[], torch.nn.Module], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make()
