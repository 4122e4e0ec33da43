from typing import Any

import pytest
import torch

from ccd_lightning.models.batchnorm import batch_statistics
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.transforms.pretext import PretextViews
from ccd_lightning.transforms.strong import Identity


def make_batch(count: int = 4, views: PretextViews | None = None) -> dict[str, torch.Tensor]:
    views = views or PretextViews(size=32, patch_size=16, pairs=2)
    images = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    items = [views(image, (0, 0, index)) for index, image in enumerate(images)]
    batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
    return {name: value.float() / 255 if value.dtype == torch.uint8 else value for name, value in batch.items()}


@pytest.fixture(scope="module")
def module() -> CCD:
    torch.manual_seed(0)
    return CCD()


def test_permuting_the_batch_changes_nothing(module: CCD) -> None:
    """Labels go with their views: were they aligned by place, another order would give other losses."""
    batch = make_batch()
    order = torch.tensor([2, 0, 3, 1])
    for shuffled in (
        {name: value[order] for name, value in batch.items()},
        batch | {"views": batch["views"][:, :, order], "augmentation": batch["augmentation"][:, order]},
    ):
        with torch.no_grad(), batch_statistics(module):
            before, after = module.losses(batch), module.losses(shuffled)
        for name, value in before.items():
            assert after[name].item() == pytest.approx(value.item(), abs=1e-4), name


def test_views_are_matched_with_their_labels(module: CCD) -> None:
    """With a head that reads the label out of the picture, every view is classified correctly."""
    batch = make_batch()
    batch["augmentation"] = torch.stack([torch.randperm(4) for _ in range(4)])  # another order in every image
    shade = batch["augmentation"].float()[:, None, :, None, None, None] / 4
    batch["views"] = shade.expand_as(batch["views"])

    class Reader(torch.nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return -((features[:, :1] * 4 - torch.arange(4)) ** 2)

    class Shades(torch.nn.Module):
        def features(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean(dim=(1, 2, 3))[:, None].expand(-1, CCD().encoder.features_size)

    reader = CCD()
    reader.encoder, reader.augmentation = Shades(), Reader()  # type: ignore[assignment]
    with torch.no_grad():
        assert reader.losses(batch)["augmentation_accuracy"] == 1


def test_every_parameter_gets_a_gradient(module: CCD) -> None:
    module.total(module.losses(make_batch())).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_total_loss_is_weighted() -> None:
    weighted = CCD(contrastive_weight=2.0, augmentation_weight=0.5, position_weight=0.0)
    losses = {"contrastive": torch.tensor(1.0), "augmentation": torch.tensor(10.0), "position": torch.tensor(100.0)}
    assert weighted.total(losses).item() == pytest.approx(7.0)


class Counted(torch.nn.Module):
    """An encoder that counts the images it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.seen = Encoder(), list[int]()

    def features(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(images))
        return self.encoder.features(images)


@pytest.mark.parametrize(
    ("options", "left_out", "seen"),
    [
        ({}, set(), [4 * 2 * 4, 4 * 2 * 2]),
        ({"position_weight": 0}, {"position"}, [4 * 2 * 4]),
        ({"augmentation_weight": 0}, {"augmentation"}, [4 * 2 * 4, 4 * 2 * 2]),
        ({"position_weight": 0, "augmentation_weight": 0}, {"position", "augmentation"}, [4 * 2 * 4]),
    ],
)
def test_a_task_of_weight_0_is_left_out_and_costs_nothing(
    options: dict[str, Any], left_out: set[str], seen: list[int]
) -> None:
    module, all_of_them = CCD(**options), set(CCD().losses(make_batch()))
    counted = Counted()
    module.encoder = counted  # type: ignore[assignment]
    losses = module.losses(make_batch())
    assert counted.seen == seen
    assert all_of_them - set(losses) == {f"{task}{name}" for task in left_out for name in ("", "_accuracy")}
    module.total(losses).backward()
    for name, parameter in module.named_parameters():  # as distributed training asks for
        assert parameter.requires_grad == (parameter.grad is not None) == (name.split(".")[0] not in left_out), name
    assert CCD(**options).state_dict().keys() == CCD().state_dict().keys()


def test_one_distribution_without_tasks_is_simclr() -> None:
    """Against loops: of each view, how likely its partner is among all other views (Chen et al., 2020, eq. 1)."""
    module = CCD(distributions=1, augmentation_weight=0, position_weight=0, temperature=0.5)
    batch = make_batch(5, PretextViews(Identity(), size=32, pairs=0))
    assert set(batch) == {"views", "augmentation"}
    assert batch["views"].shape == (5, 2, 1, 3, 32, 32)
    with torch.no_grad():
        losses = module.losses(batch)
        views = torch.cat([batch["views"][:, 0, 0], batch["views"][:, 1, 0]])
        z = torch.nn.functional.normalize(module.projection(module.encoder.features(views)), dim=1)
    expected = 0.0
    for i in range(10):
        others = [torch.exp(z[i] @ z[k] / 0.5) for k in range(10) if k != i]
        partner = torch.exp(z[i] @ z[(i + 5) % 10] / 0.5)
        expected -= float(torch.log(partner / torch.stack(others).sum())) / 10
    assert float(losses["contrastive"]) == pytest.approx(expected, rel=1e-4)
    assert float(module.total(losses)) == float(losses["contrastive"])
