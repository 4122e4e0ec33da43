import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ccd_lightning.models.comparison import Comparison, PatchComparison, PooledComparison, neighbourhood

NORMAL = torch.randn(6, 5, 3, 4, generator=torch.Generator().manual_seed(0))
QUERIES = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(1))


def fitted(comparison: Comparison, features: Tensor = NORMAL) -> Comparison:
    for batch in torch.split(features, 4):
        comparison.update(batch)
    comparison.fit()
    return comparison


def brute_force(query: Tensor, row: int, column: int, window: int | None) -> float:
    best = float("inf")
    for image in NORMAL:
        for other_row in range(3):
            for other_column in range(4):
                if window is None or max(abs(other_row - row), abs(other_column - column)) <= window:
                    best = min(best, float((query[:, row, column] - image[:, other_row, other_column]).norm()))
    return best


@pytest.mark.parametrize("window", [0, 1, 2, None])
def test_distances_are_those_of_loops(window: int | None) -> None:
    maps, weights = fitted(PatchComparison(None, window, 0))(QUERIES)
    assert weights is None
    for query, found in zip(QUERIES, maps, strict=True):
        for row in range(3):
            for column in range(4):
                assert float(found[row, column]) == pytest.approx(brute_force(query, row, column, window), rel=1e-5)


def test_a_window_over_all_positions_is_none() -> None:
    around, anywhere = (fitted(PatchComparison(None, window, 3))(QUERIES) for window in (4, None))
    assert torch.allclose(around[0], anywhere[0])
    assert around[1] is not None
    assert anywhere[1] is not None


@pytest.mark.parametrize("neighbours", [1, 4])
def test_reweighting_is_equation_7(neighbours: int) -> None:
    maps, weights = fitted(PatchComparison(None, None, neighbours))(QUERIES)
    assert weights is not None
    bank = NORMAL.permute(0, 2, 3, 1).flatten(0, 2)
    for query, found, weight in zip(QUERIES, maps, weights, strict=True):
        patch = query.flatten(1)[:, found.argmax()]
        match = bank[(bank - patch).norm(dim=1).argmin()]
        support = bank[(bank - match).norm(dim=1).argsort()[:neighbours]]
        distances = (support - patch).norm(dim=1).exp()
        assert float(weight) == pytest.approx(float(1 - distances[0] / distances.sum()), rel=1e-4, abs=1e-6)


def test_a_bank_of_positions_can_be_searched_anywhere() -> None:
    comparison = fitted(PatchComparison(None, 1, 0))
    assert isinstance(comparison, PatchComparison)
    comparison.window = None
    assert torch.allclose(comparison(QUERIES)[0], fitted(PatchComparison(None, None, 0))(QUERIES)[0])


def test_other_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 5 features at 12 positions, got 5 at 6"):
        fitted(PatchComparison(None, 1, 0))(QUERIES[:, :, :, :2])


def test_pooled_features_are_compared_as_one_vector() -> None:
    maps, scores = fitted(PooledComparison(None, 2))(QUERIES)
    means = NORMAL.mean(dim=(2, 3))
    for query, found, score in zip(QUERIES, maps, scores if scores is not None else [], strict=True):
        distances, indices = (query.mean(dim=(1, 2)) - means).norm(dim=1).sort()
        assert float(score) == pytest.approx(float(distances[:2].mean()), rel=1e-5)
        direction = functional.normalize(query.mean(dim=(1, 2)) - means[indices[:2]].mean(dim=0), dim=0)
        added = torch.einsum("dhw,d->hw", query - NORMAL.mean(dim=0), direction)
        assert torch.allclose(found, added.clamp(min=0), atol=1e-5)


def test_neighbourhood() -> None:
    around = neighbourhood(3, 4, 1)
    assert around.shape == (12, 9)
    assert sorted(set(around[0].tolist())) == [0, 1, 4, 5]
    assert sorted(around[5].tolist()) == [0, 1, 2, 4, 5, 6, 8, 9, 10]
