import copy

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ccd_lightning.models.batchnorm import batch_statistics, calibrate
from ccd_lightning.models.encoder import Encoder


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


def pair() -> tuple[torch.nn.Sequential, torch.nn.BatchNorm2d, torch.nn.BatchNorm2d]:
    """Two norms in a row, and each of them; the first is to be kept."""
    kept, other = torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2)
    kept.running_mean = torch.full((2,), 3.0)
    return torch.nn.Sequential(kept, other).eval(), kept, other


def test_norms_that_are_kept_go_by_their_own_statistics_in_batches_too() -> None:
    norms, kept, _ = pair()
    images = torch.randn(6, 2, 4, 4)
    with batch_statistics(norms, {kept}):
        first, both = kept(images), norms(images)
    assert torch.allclose(first, (images - 3) / (1 + kept.eps) ** 0.5, atol=1e-6)
    assert torch.allclose(both.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-5)
    assert not kept.training


def test_calibration_leaves_norms_that_are_kept_and_sees_images_through_them() -> None:
    norms, kept, other = pair()
    images = torch.randn(6, 2, 4, 4)
    calibrate(norms, lambda: iter([images]), keep={kept})
    assert kept.running_mean is not None
    assert other.running_mean is not None
    assert torch.equal(kept.running_mean, torch.full((2,), 3.0))
    assert torch.allclose(other.running_mean, (images - 3).mean(dim=(0, 2, 3)), atol=1e-4)
