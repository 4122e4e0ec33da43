"""Views that are made of a whole batch, after its transfer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from ccd_lightning.data.datasets import Folder
from ccd_lightning.transforms.medmix import MedMix
from ccd_lightning.transforms.pretext import PretextViews
from ccd_lightning.transforms.strong import Cutout, Noise, Permutation, Rotation

IMAGES = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FAMILIES = (Permutation, Rotation, Cutout, Noise, MedMix)


class Shift(nn.Module):
    """A family of one's own, which says nothing of drawing and holds a tensor."""

    count = 3

    def __init__(self) -> None:
        super().__init__()
        self.step: Tensor
        self.register_buffer("step", torch.tensor(20))

    def forward(self, images: Tensor, index: Tensor, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randint(0, 9, (len(images), 1, 1, 1), generator=generator, device=images.device)
        return (images // 2 + (noise + self.step) * (index > 0).view(-1, 1, 1, 1)).to(torch.uint8)


def on_device(**settings: Any) -> PretextViews:
    defaults: dict[str, Any] = {"size": 16, "patch_size": 16, "cutout_size": 6, "augment_on": "device"}
    return PretextViews(**defaults | settings)


def batch_of(views: PretextViews, indices: list[int], epoch: int = 0, seed: int = 0) -> dict[str, Any]:
    items = [{"image": IMAGES[index]} | views(IMAGES[index], (seed, epoch, index)) for index in indices]
    batch: dict[str, Any] = default_collate(items)
    return views.complete(batch)


@pytest.mark.parametrize("family", [*FAMILIES, Shift])
@pytest.mark.parametrize(("draw", "tile"), [("all", 0), ("one", 32)])
def test_views_are_a_function_of_the_seed_and_not_of_the_batch(family: type[nn.Module], draw: str, tile: int) -> None:
    views = on_device(family=family(), tile=tile, draw=draw)
    whole = batch_of(views, [0, 1, 2, 3, 4, 5], epoch=3)
    count = views.family.count if draw == "all" else 1
    assert set(whole) == {"image", "augmentation", "patches", "position", "views"}
    assert whole["views"].shape == (6, 2, count, 3, 16, 16)
    assert whole["views"].dtype == torch.float32
    assert 0 <= whole["views"].min() < whole["views"].max() <= 1
    for indices in ([4], [5, 2, 0]):
        part = batch_of(on_device(family=family(), tile=tile, draw=draw), indices, epoch=3)
        assert torch.allclose(part["views"], whole["views"][indices], atol=1e-6)
    for other in (batch_of(views, [0], epoch=4), batch_of(views, [0], epoch=3, seed=1)):
        assert not torch.allclose(other["views"][0], whole["views"][0], atol=0.1)
    assert not torch.allclose(whole["views"][:, 0], whole["views"][:, 1], atol=0.1)


@pytest.mark.parametrize("family", [*FAMILIES, Shift])
@pytest.mark.parametrize("draw", ["all", "one"])
def test_all_but_the_views_is_as_on_the_cpu(family: type[nn.Module], draw: Any) -> None:
    device, cpu = (on_device(family=family(), tile=32, draw=draw, augment_on=weak) for weak in ("device", "cpu"))
    for index, image in enumerate(IMAGES):
        ours, theirs = device(image, (0, 1, index)), cpu(image, (0, 1, index))
        assert all(torch.equal(ours[name], theirs[name]) for name in ("augmentation", "patches", "position"))


def plain(views: PretextViews) -> PretextViews:
    """Weak views that are neither flipped nor coloured."""
    views.settings = replace(views.settings, flip=0.0, jitter=0.0, grey=0.0)
    return views


def levels(views: PretextViews, image: Tensor) -> Tensor:
    """The first view (N, K, 3, S, S) of an image in N = 40 epochs, in whole grey levels."""
    batch = default_collate([{"image": image} | views(image, (0, epoch, 0)) for epoch in range(40)])
    made: Tensor = views.complete(batch)["views"][:, 0]
    return (made * 255).round()


def test_distributions_are_in_order() -> None:
    tones = torch.tensor([[50, 100], [150, 200]], dtype=torch.uint8)
    image = tones.repeat_interleave(32, 0).repeat_interleave(32, 1).expand(3, -1, -1).contiguous()
    made = levels(plain(on_device(scale=(1.0, 1.0), cutout_size=0)), image)
    assert torch.equal(made[:, :, 0, 2, 2], torch.tensor([50.0, 100, 150, 200]).expand(40, -1))


def test_tiles_are_those_of_the_cpu() -> None:
    tones = torch.arange(16, dtype=torch.uint8).view(4, 4) * 10
    image = tones.repeat_interleave(16, 0).repeat_interleave(16, 1).expand(3, -1, -1).contiguous()
    ours, theirs = (plain(on_device(tile=16, cutout_size=0, augment_on=weak)) for weak in ("device", "cpu"))
    made = levels(ours, image)
    assert len(set(made.flatten().tolist())) > 8
    for epoch, views in enumerate(made):
        assert set(views.flatten().tolist()) == set(theirs(image, (0, epoch, 0))["views"].flatten().tolist())


@pytest.mark.parametrize("family", [Cutout, Noise, MedMix, Shift])
def test_a_family_draws_anew_each_time(family: type[nn.Module]) -> None:
    grey = torch.full((3, 64, 64), 90, dtype=torch.uint8)
    made = levels(plain(on_device(family=family(), scale=(1.0, 1.0), cutout_size=0)), grey)
    assert len(made[:, 0].unique(dim=0)) == 1
    assert len(made[:, 1].unique(dim=0)) > 6


@pytest.mark.parametrize("family", [Permutation, Rotation])
def test_nothing_is_read_back_from_the_device(family: type[nn.Module]) -> None:
    """The meta device has no values: what asks for one fails there."""
    views = on_device(family=family(), tile=32)
    batch = default_collate([{"image": image} | views(image, (0, 0, 0)) for image in IMAGES])
    moved = {name: value.to("meta") if isinstance(value, Tensor) else value for name, value in batch.items()}
    assert views.complete(moved)["views"].shape == (6, 2, 4, 3, 16, 16)


def test_mistakes_are_reported_when_the_first_image_is_drawn() -> None:
    odd = IMAGES[0, :, :63, :63]
    with pytest.raises(ValueError, match="even"):
        on_device()(odd, (0, 0, 0))
    with pytest.raises(ValueError, match="tile is 24"):
        on_device(tile=24)(IMAGES[0], (0, 0, 0))


def test_the_data_module_completes_batches_and_leaves_others_alone(folder: Path) -> None:
    seen = []
    for workers in (0, 2):
        data = Folder(str(folder), size=64, batch_size=4, num_workers=workers, views=on_device())
        data.setup("fit")
        batches = [data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader()]
        seen.append(torch.cat([batch["views"] for batch in batches]))
    assert torch.equal(*seen)
    assert "draws" not in batches[0]
    assert seen[0].shape[1:] == (2, 4, 3, 16, 16)
    assert 0.1 < batches[0]["image"].max() <= 1
    bare = {"image": IMAGES}
    assert on_device().complete(bare) is bare
