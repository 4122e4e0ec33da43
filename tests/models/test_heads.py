import pytest
import torch

from ccd_lightning.models.heads import AugmentationHead, PositionHead, ProjectionHead, feature_std


@pytest.mark.parametrize("head", [ProjectionHead(), AugmentationHead(512, 4)])
def test_every_parameter_gets_a_gradient(head: torch.nn.Module) -> None:
    (head(torch.randn(8, 512)) * torch.randn(1, head(torch.randn(8, 512)).shape[1])).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


def test_position_head_sees_the_difference() -> None:
    head = PositionHead()
    first, second = torch.randn(2, 5, 512)
    assert head(first, second).shape == (5, 8)
    assert torch.allclose(head(first + 1, second + 1), head(first, second), atol=1e-5)
    head(first, second).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


def test_feature_std_is_1_for_normal_features_and_0_for_collapsed_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    assert feature_std(torch.randn(4000, 128, generator=generator)).item() == pytest.approx(1, abs=0.01)
    assert feature_std(torch.ones(16, 128)).item() == pytest.approx(0, abs=1e-6)
