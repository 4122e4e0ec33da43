"""PMSACL's losses against loops."""

import pytest
import torch

from ccd_lightning.losses.centring import centred, centring_loss
from ccd_lightning.losses.contrastive import nt_xent

SEEDED = torch.Generator().manual_seed(0)
FEATURES = torch.randn(9, 5, dtype=torch.float64, generator=SEEDED)
CENTRES = torch.randn(4, 5, dtype=torch.float64, generator=SEEDED)
CLASSES = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0, 1])


def weighted_by_loops(
    first: torch.Tensor, second: torch.Tensor, classes: list[int], temperature: float, alpha: float
) -> float:
    """Pair by pair, each similarity times kappa(n, m) = 1 / (alpha temperature) if n = m, else 1 / temperature."""
    z = [vector / vector.norm() for vector in torch.cat([first, second])]
    kinds, count, total = classes + classes, len(first), 0.0

    def weighted(i: int, k: int) -> torch.Tensor:
        kappa = 1 / (alpha * temperature) if kinds[i] == kinds[k] else 1 / temperature
        return torch.exp(kappa * (z[i] @ z[k]))

    for i in range(2 * count):
        total -= float(torch.log(weighted(i, (i + count) % (2 * count)) / sum(weighted(i, k) for k in others(i, z))))
    return total / (2 * count)


def others(i: int, z: list[torch.Tensor]) -> list[int]:
    return [k for k in range(len(z)) if k != i]


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_contrastive_loss_is_weighted_by_class(alpha: float) -> None:
    first, second = FEATURES, FEATURES.flip(1) + FEATURES
    loss = nt_xent(first, second, 0.2, CLASSES, alpha)
    assert loss.item() == pytest.approx(weighted_by_loops(first, second, CLASSES.tolist(), 0.2, alpha), abs=1e-9)
    if alpha == 1:
        assert torch.equal(loss, nt_xent(first, second, 0.2))
    else:
        assert abs(loss - nt_xent(first, second, 0.2)) > 0.01
        assert torch.equal(loss, nt_xent(first, second, 0.2, CLASSES + 7, alpha))


def test_alpha_1_has_the_gradient_without_classes_to_the_bit() -> None:
    gradients = []
    for extra in ((), (CLASSES, 1.0)):
        first = FEATURES.float().clone().requires_grad_()
        nt_xent(first, FEATURES.flip(1).float(), 0.2, *extra).backward()
        gradients.append(first.grad)
    assert torch.equal(*gradients)  # type: ignore[arg-type]


def test_centring_loss_agrees_with_loops() -> None:
    expected = 0.0
    for vector, kind in zip(FEATURES.tolist(), CLASSES.tolist(), strict=True):
        for value, centre in zip(vector, CENTRES[kind].tolist(), strict=True):
            expected += (value - centre) ** 2 / len(FEATURES)
    assert centring_loss(FEATURES, CENTRES, CLASSES).item() == pytest.approx(expected, abs=1e-12)
    for row, (vector, kind) in enumerate(zip(FEATURES, CLASSES, strict=True)):
        assert torch.equal(centred(FEATURES, CENTRES, CLASSES)[row], vector - CENTRES[kind])


def test_only_features_learn_from_the_centring_loss() -> None:
    features = FEATURES.clone().requires_grad_()
    centring_loss(features, CENTRES, CLASSES).backward()
    assert torch.allclose(features.grad, 2 * (FEATURES - CENTRES[CLASSES]) / 9)  # type: ignore[arg-type]


def test_alpha_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"alpha must be positive, got 0\.2 and 0"):
        nt_xent(FEATURES, FEATURES, 0.2, CLASSES, 0)
