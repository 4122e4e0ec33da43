from typing import Any

import pytest
import torch

from ccd_lightning.transforms.strong import Permutation


def test_reference_permutation(golden: dict[str, Any]) -> None:
    shape = golden["permutation"]["input_shape"]
    images = torch.arange(torch.tensor(shape).prod().item()).view(shape)
    for index, expected in golden["permutation"]["output"].items():
        swapped = Permutation()(images, torch.full((shape[0],), int(index)))
        assert torch.equal(swapped, torch.tensor(expected).view(shape))


def test_every_image_gets_its_own() -> None:
    images = torch.rand(4, 3, 6, 8)
    index = torch.tensor([2, 0, 3, 1])
    together = Permutation()(images, index)
    for place in range(4):
        assert torch.equal(together[place], Permutation()(images[place : place + 1], index[place : place + 1])[0])
    assert torch.equal(together[1], images[1])


def test_odd_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        Permutation()(torch.zeros(1, 3, 5, 4), torch.zeros(1))
