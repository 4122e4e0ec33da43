import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.modules.batchnorm import _BatchNorm

from ccd_lightning.errors import UserError
from ccd_lightning.models.batchnorm import batch_statistics, calibrate
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.modules.schedule import cosine_with_warmup
from ccd_lightning.transforms.pretext import PretextViews


def make_batch(count: int = 4) -> dict[str, torch.Tensor]:
    views = PretextViews(size=32, patch_size=16, pairs=2)
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
            return images.mean(dim=(1, 2, 3))[:, None].expand(-1, Encoder.features_size)

    reader = CCD()
    reader.encoder, reader.augmentation = Shades(), Reader()  # type: ignore[assignment]
    with torch.no_grad():
        assert reader.losses(batch)["augmentation_accuracy"] == 1


def test_every_parameter_gets_a_gradient(module: CCD) -> None:
    module.total(module.losses(make_batch())).backward()  # type: ignore[no-untyped-call]
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_weights_of_the_losses() -> None:
    weighted = CCD(contrastive_weight=2.0, augmentation_weight=0.5, position_weight=0.0)
    losses = {"contrastive": torch.tensor(1.0), "augmentation": torch.tensor(10.0), "position": torch.tensor(100.0)}
    assert weighted.total(losses).item() == pytest.approx(7.0)


def test_published_schedule(golden: dict[str, Any]) -> None:
    schedule = golden["schedule"]
    for epoch, rate in schedule["lr_at_epoch"].items():
        factor = cosine_with_warmup(int(epoch), schedule["epochs"], final=schedule["lr_decay_rate"] ** 3)
        assert schedule["lr"] * factor == pytest.approx(rate, abs=1e-9)


def test_an_epochs_cosine_stays_while_the_warmup_rises() -> None:
    factors = [cosine_with_warmup(step, 40, warmup=3, every=10) for step in range(40)]
    assert factors[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factors[10:20] == [cosine_with_warmup(1, 4)] * 10
    assert factors[39] == cosine_with_warmup(3, 4)


def test_warmup_rises_to_the_cosine() -> None:
    factors = [cosine_with_warmup(step, 1000, warmup=9) for step in range(12)]
    assert factors[0] == pytest.approx(0.1)
    assert factors == sorted(factors[:10]) + factors[10:]
    assert factors[9] == cosine_with_warmup(9, 1000)


class Flat(torch.nn.Module):
    """Takes the images for features."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images


class Drawn:
    """Training and held-out images, the latter also three times as far away, as an augmented version would be."""

    tile = 0

    def __init__(self, factor: float) -> None:
        normal = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
        train, held_out = normal[:300], normal[300:]
        self.mean = torch.tensor([9.0] * 8)
        self.train, self.held_out = self.mean + train, torch.cat([self.mean + held_out, self.mean + factor * held_out])

    def normal_images(
        self, device: torch.device, rank: int = 0, ranks: int = 1, at_most: int | None = None
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        return [self.train], []

    def held_out_distributions(self, device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(self.held_out, torch.arange(2).repeat_interleave(100))]


@pytest.mark.parametrize(("factor", "low", "high"), [(1.0, 0.49, 0.51), (1.5, 0.7, 0.95), (6.0, 0.99, 1.0)])
def test_probe_tells_held_out_images_from_their_augmented_versions(factor: float, low: float, high: float) -> None:
    module, data = CCD(), Drawn(factor)
    module.encoder = Flat()  # type: ignore[assignment]
    module._trainer = SimpleNamespace(datamodule=data, global_rank=0, world_size=1)  # type: ignore[assignment]
    probed = module._probe_held_out()
    distances = module.probe(data.held_out).double().numpy()
    assert probed["auroc"] == pytest.approx(roc_auc_score(np.arange(200) >= 100, distances), abs=1e-6)
    assert low <= probed["auroc"] <= high
    logs = np.log(distances)
    assert probed["separation"] == pytest.approx(logs[100:].mean() - logs[:100].mean(), abs=1e-5)


def test_probe_is_silent_when_features_are_no_numbers() -> None:
    module, data = CCD(), Drawn(2.0)
    data.train[3, 2] = float("nan")
    module.encoder = Flat()  # type: ignore[assignment]
    module._trainer = SimpleNamespace(datamodule=data, global_rank=0, world_size=1)  # type: ignore[assignment]
    assert module._probe_held_out() == {}
    with pytest.raises(UserError, match="training broke down"):
        module.on_test_start()


def test_batch_norm_sees_all_gpus(module: CCD) -> None:
    synced = CCD()
    gpus = SimpleNamespace(world_size=2, strategy=SimpleNamespace(root_device=torch.device("cuda")))
    synced._trainer = gpus  # type: ignore[assignment]
    synced.setup("fit")
    norms = [part for part in synced.modules() if isinstance(part, _BatchNorm)]
    assert len(norms) == sum(isinstance(part, _BatchNorm) for part in module.modules()) > 10
    assert all(isinstance(norm, torch.nn.SyncBatchNorm) for norm in norms)
    assert synced.state_dict().keys() == module.state_dict().keys()


def test_calibration_averages_over_images() -> None:
    norm = torch.nn.BatchNorm2d(2).eval()
    images = torch.randn(7, 2, 5, 5) * 3 + torch.arange(7).view(-1, 1, 1, 1)
    calibrate(norm, lambda: iter(torch.split(images, 2)))  # of which the last is smaller
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert torch.allclose(norm.running_mean, images.mean(dim=(0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, images.var(dim=(0, 2, 3)), rtol=1e-5)
    assert not norm.training
    assert norm.momentum == 0.1


def statistics(images: torch.Tensor, size: int) -> torch.Tensor:
    """The running statistics of an encoder that is calibrated on batches of this size."""
    torch.manual_seed(0)
    encoder = Encoder()
    calibrate(encoder, lambda: iter(torch.split(images, size)))
    assert all(part.training for part in encoder.modules())
    return torch.cat([value.flatten() for name, value in encoder.state_dict().items() if "running" in name])


def test_calibration_does_not_depend_on_order_and_batches_and_is_that_of_one_batch() -> None:
    images = torch.rand(24, 3, 32, 32) * torch.linspace(0.1, 1, 24).view(-1, 1, 1, 1)  # sorted by brightness
    expected = statistics(images, 24)
    shuffled = images[torch.randperm(24)]
    for order, size in ((images, 8), (shuffled, 8), (images, 1), (shuffled, 5)):
        assert torch.allclose(statistics(order, size), expected, rtol=1e-5, atol=1e-5)
    encoder = Encoder().train()
    for part in encoder.modules():
        if isinstance(part, _BatchNorm):
            part.momentum = None
    torch.manual_seed(0)
    encoder.load_state_dict(Encoder().state_dict())
    encoder(images)
    running = [value.flatten() for name, value in encoder.state_dict().items() if "running" in name]
    # In training it divides by the biased variance, which differs by a part in 24 where maps are one pixel.
    assert torch.allclose(expected, torch.cat(running), rtol=0.05, atol=0.02)


def test_calibration_that_fails_leaves_modes_as_they_were() -> None:
    encoder = Encoder().train()
    with pytest.raises(RuntimeError):
        calibrate(encoder, lambda: iter([torch.rand(2, 5, 32, 32)]))
    assert all(part.training for part in encoder.modules())


def test_calibration_on_the_shares_of_two_processes_is_that_on_all_images() -> None:
    norm, images = torch.nn.BatchNorm2d(3), torch.rand(5, 3, 8, 8)
    shares = []

    def keep(sums: torch.Tensor) -> torch.Tensor:
        shares.append(sums)
        return sums

    calibrate(copy.deepcopy(norm), lambda: iter([images[:2]]), keep)
    calibrate(norm, lambda: iter([images[2:]]), lambda sums: sums + shares[0])
    assert norm.running_var is not None
    assert torch.allclose(norm.running_var, images.var(dim=(0, 2, 3)), rtol=1e-5)


def test_batch_statistics_leave_no_trace() -> None:
    norm = torch.nn.BatchNorm1d(3).eval()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    with batch_statistics(norm):
        out = norm(torch.randn(64, 3) * 5 + 2)
    assert torch.allclose(out.mean(dim=0), torch.zeros(3), atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert not norm.training
