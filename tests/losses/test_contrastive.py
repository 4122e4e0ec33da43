import math
from typing import Any

import pytest
import torch

from ccd_lightning.losses.contrastive import alignment, nt_xent, uniformity


def by_loops(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    """Equation 1 of SimCLR, pair by pair."""
    z = [vector / vector.norm() for vector in torch.cat([first, second])]
    total, count = 0.0, len(first)
    for i in range(2 * count):
        partner = (i + count) % (2 * count)
        denominator = sum(torch.exp(z[i] @ z[k] / temperature) for k in range(2 * count) if k != i)
        total -= float(torch.log(torch.exp(z[i] @ z[partner] / temperature) / denominator))
    return total / (2 * count)


def test_loss_has_the_reference_values(golden: dict[str, Any]) -> None:
    features = torch.tensor(golden["contrastive"]["features_b_2_d"])
    for case in golden["contrastive"]["symmetric_mean"]:
        loss = nt_xent(features[:, 0], features[:, 1], case["temperature"])
        assert loss.item() == pytest.approx(case["loss"], abs=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0])
def test_loss_agrees_with_loops(temperature: float) -> None:
    first, second = torch.randn(2, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert nt_xent(first, second, temperature).item() == pytest.approx(by_loops(first, second, temperature), abs=1e-9)


def test_both_views_are_anchors() -> None:
    first, second = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1))
    assert nt_xent(first, second, 0.2).item() == pytest.approx(nt_xent(second, first, 0.2).item(), abs=1e-6)


def test_order_and_scale_do_not_matter() -> None:
    first, second = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(2))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert nt_xent(3 * first[order], second[order], 0.2).item() == pytest.approx(nt_xent(first, second, 0.2).item())


def test_loss_of_collapsed_projections_is_log_2n_minus_1() -> None:
    same = torch.ones(8, 4)
    assert nt_xent(same, same, 0.2).item() == pytest.approx(torch.tensor(15.0).log().item(), abs=1e-5)


def test_wrong_shapes_and_temperatures_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        nt_xent(torch.zeros(2, 3), torch.zeros(3, 3), 0.2)
    with pytest.raises(ValueError, match="positive"):
        nt_xent(torch.zeros(2, 3), torch.zeros(2, 3), 0.0)


def test_one_class_does_not_depend_on_alpha() -> None:
    first, second = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(3))
    classes = torch.tensor([0, 0, 1, 1, 2, 2])
    assert nt_xent(first, second, 0.2, classes).item() == nt_xent(first, second, 0.2).item()  # alpha is 1 by default
    assert nt_xent(first, second, 0.2, classes, alpha=2.0).item() != nt_xent(first, second, 0.2).item()


def test_alignment_is_the_mean_squared_distance_between_views() -> None:
    first, second = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    pairs = [(a / a.norm() - b / b.norm()).square().sum() for a, b in zip(first, second, strict=True)]
    assert alignment(first, second).item() == pytest.approx(float(sum(pairs)) / 5, abs=1e-12)
    assert alignment(first, 3 * first).item() == pytest.approx(0, abs=1e-12)
    assert alignment(first, -first).item() == pytest.approx(4, abs=1e-12)


def test_uniformity_is_that_of_wang_and_isola() -> None:
    points = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    unit = [point / point.norm() for point in points]
    potentials = [math.exp(-2 * float((unit[i] - unit[j]).square().sum())) for i in range(6) for j in range(i)]
    assert uniformity(points).item() == pytest.approx(math.log(sum(potentials) / len(potentials)), abs=1e-12)
    assert uniformity(points[:1].expand(4, -1)).item() == pytest.approx(0, abs=1e-12)
