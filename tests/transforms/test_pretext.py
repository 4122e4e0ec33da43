from typing import Literal

import pytest
import torch

from ccd_lightning.transforms.medmix import MedMix
from ccd_lightning.transforms.pretext import PretextViews
from ccd_lightning.transforms.strong import Cutout, Identity, Noise, Permutation, Rotation

IMAGE = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def quadrants(size: int = 64) -> torch.Tensor:
    """An image whose quarters are 50, 100, 150 and 200, in reading order."""
    tones = torch.tensor([[50, 100], [150, 200]], dtype=torch.uint8)
    return tones.repeat_interleave(size // 2, 0).repeat_interleave(size // 2, 1).expand(3, -1, -1).contiguous()


def leave_the_crop_alone(views: PretextViews) -> None:
    """Drops flips and colours from the weak views, so that what is left shows the distribution."""
    weak = views._drawn_by
    if weak is None:
        raise AssertionError("no view was drawn yet")
    weak.compose.transforms = weak.compose.transforms[:1]


def test_views_and_patches_have_their_shapes_and_labels() -> None:
    item = PretextViews(size=32, patch_size=16)(IMAGE, (0, 0, 0))
    assert item["views"].shape == (2, 4, 3, 32, 32)
    assert item["views"].dtype == torch.uint8
    assert item["augmentation"].tolist() == [0, 1, 2, 3]
    assert item["patches"].shape == (2, 4, 3, 16, 16)
    assert item["position"].shape == (4,)


def test_without_pairs_there_are_no_patches() -> None:
    item = PretextViews(size=32, patch_size=64, pairs=0)(IMAGE, (0, 0, 0))  # patches that would not fit
    assert set(item) == {"views", "augmentation"}
    with pytest.raises(ValueError, match=r"data\.views\.pairs is -1, but must be 0 or more"):
        PretextViews(pairs=-1)


@pytest.mark.parametrize("augment_on", ["cpu", "device"])
def test_the_identity_family_has_one_distribution(augment_on: Literal["cpu", "device"]) -> None:
    views = PretextViews(Identity(), size=32, pairs=0, augment_on=augment_on)
    item = views(IMAGE, (0, 0, 0))
    if augment_on == "device":
        batch = {"image": IMAGE[None], "draws": [item["draws"]], "augmentation": item["augmentation"][None]}
        item = views.complete(batch)
    assert item["views"].shape[-5:] == (2, 1, 3, 32, 32)
    assert item["augmentation"].flatten().tolist() == [0]


def test_views_are_a_function_of_seed_epoch_and_index() -> None:
    views = PretextViews(size=32, patch_size=16)
    once = views(IMAGE, (0, 3, 7))
    views(IMAGE, (0, 0, 1))  # what was drawn in between does not matter
    again = PretextViews(size=32, patch_size=16)(IMAGE, (0, 3, 7))
    assert all(torch.equal(once[name], again[name]) for name in once)
    for other in ((1, 3, 7), (0, 4, 7), (0, 3, 8)):
        assert not torch.equal(views(IMAGE, other)["views"], once["views"])


def test_the_two_views_differ_and_distributions_are_in_order() -> None:
    views = PretextViews(size=32, patch_size=16, scale=(1.0, 1.0))
    item = views(quadrants(), (0, 0, 0))
    assert not torch.equal(item["views"][0], item["views"][1])
    leave_the_crop_alone(views)
    item = views(quadrants(), (0, 0, 0))
    corners = item["views"][0, :, 0, 2, 2].tolist()
    assert corners == [50, 100, 150, 200]  # nothing, columns, rows, both: another quarter comes first each time


def test_one_drawn_distribution_is_labelled_by_itself() -> None:
    views = PretextViews(size=32, patch_size=16, scale=(1.0, 1.0), draw="one")
    views(quadrants(), (0, 0, 0))
    leave_the_crop_alone(views)
    drawn = set()
    for index in range(40):
        item = views(quadrants(), (0, 0, index))
        assert item["views"].shape[1] == 1
        label = int(item["augmentation"])
        assert item["views"][0, 0, 0, 2, 2] == [50, 100, 150, 200][label]
        drawn.add(label)
    assert drawn == {0, 1, 2, 3}


def tiles(side: int) -> torch.Tensor:
    """An image of 64 px whose tiles are of one tone each, their number in reading order, times 3."""
    count = 64 // side
    tones = 3 * torch.arange(count * count, dtype=torch.uint8).view(count, count)
    return tones.repeat_interleave(side, 0).repeat_interleave(side, 1).expand(3, -1, -1).contiguous()


def test_views_are_drawn_from_one_tile() -> None:
    views = PretextViews(size=16, patch_size=16, pairs=1, draw="one", tile=8)
    views(tiles(8), (0, 0, 0))
    leave_the_crop_alone(views)
    drawn = set()
    for epoch in range(600):
        item = views(tiles(8), (0, epoch, 5))
        assert item["views"].shape == (2, 1, 3, 16, 16)
        (tone,) = set(
            item["views"].flatten().tolist()
        )  # a tile of the grid and nothing of its neighbours, in all views
        drawn.add(tone)
    assert drawn == set(range(0, 3 * 64, 3))


@pytest.mark.parametrize("family", [Permutation, Rotation, Cutout, Noise, MedMix])
def test_a_tile_is_a_function_of_the_seed_and_leaves_patches_alone(family: type[torch.nn.Module]) -> None:
    once, again = (PretextViews(family(), 16, patch_size=16, tile=32)(IMAGE, (0, 1, 2)) for _ in range(2))
    assert all(torch.equal(once[name], again[name]) for name in once)
    whole = PretextViews(family(), 16, patch_size=16)(IMAGE, (0, 1, 2))
    assert not torch.equal(once["views"], whole["views"])
    assert all(torch.equal(once[name], whole[name]) for name in ("patches", "position", "augmentation"))


@pytest.mark.parametrize("tile", [24, 128])
def test_tiles_that_do_not_divide_the_image_are_refused(tile: int) -> None:
    with pytest.raises(ValueError, match=rf"64 x 64 px do not divide into tiles \(data.views.tile is {tile}\)"):
        PretextViews(size=16, patch_size=16, tile=tile)(IMAGE, (0, 0, 0))
