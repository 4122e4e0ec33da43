from collections.abc import Callable

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


def test_a_window_over_all_positions_equals_no_window() -> None:
    around, anywhere = (fitted(PatchComparison(None, window, 3))(QUERIES) for window in (4, None))
    assert torch.allclose(around[0], anywhere[0])
    assert around[1] is not None
    assert anywhere[1] is not None


@pytest.mark.parametrize("neighbours", [1, 4])
def test_reweighting_follows_equation_7_of_patchcore(neighbours: int) -> None:
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


def test_grids_of_another_size_are_refused() -> None:
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


def test_the_neighbourhood_of_a_position_ends_at_the_border_of_the_grid() -> None:
    around, inside = neighbourhood(3, 4, 1)
    assert around.shape == inside.shape == (12, 9)
    assert sorted(around[0][inside[0]].tolist()) == sorted(set(around[0].tolist())) == [0, 1, 4, 5]
    assert sorted(around[5].tolist()) == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert inside[5].all()


MASK = torch.rand(6, 3, 4, generator=torch.Generator().manual_seed(2)) > 0.6
MASK[:, 0, :2] = False  # of no image


def fitted_within(make: Callable[[], Comparison]) -> Comparison:
    comparison, loaded = make(), make()
    for batch, mask in zip(torch.split(NORMAL, 4), torch.split(MASK, 4), strict=True):
        comparison.update(batch, mask)
    comparison.fit()
    loaded.load_state_dict(comparison.state_dict())
    return loaded


@pytest.mark.parametrize("window", [0, 1, None])
def test_features_are_compared_with_content_only(window: int | None) -> None:
    comparison = fitted_within(lambda: PatchComparison(None, window, 0))
    maps, _ = comparison(QUERIES)
    known = comparison.known(3, 4)
    for row in range(3):
        for column in range(4):
            around = [
                NORMAL[image, :, other_row, other_column]
                for image, other_row, other_column in MASK.nonzero().tolist()
                if window is None or max(abs(other_row - row), abs(other_column - column)) <= window
            ]
            assert bool(around) == (known is None or bool(known[row, column]))
            for query, found in zip(QUERIES, maps, strict=True):
                if around:
                    expected = min(float((query[:, row, column] - feature).norm()) for feature in around)
                    assert float(found[row, column]) == pytest.approx(expected, rel=1e-5)
    assert (known is None) == (window is None)


@pytest.mark.parametrize("window", [1, None])
def test_reweighting_is_by_features_alone(window: int | None) -> None:
    """However many rows fill up the groups, and with more neighbours wanted than there are."""
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    mask[0, 1] = False
    mask[:, 0, :2] = False
    comparison = fitted_within(lambda: PatchComparison(None, window, 4))
    maps, weights = comparison(QUERIES, mask)
    assert weights is not None
    for query, found, kept, weight in zip(QUERIES, maps, mask, weights, strict=True):
        place = int(torch.where(kept, found, 0).argmax())
        patch = query.flatten(1)[:, place]
        rows, columns = place // 4, place % 4
        all_of_them = [
            (*index, NORMAL[index[0], :, index[1], index[2]]) for index in map(tuple, MASK.nonzero().tolist())
        ]
        near = [one for one in all_of_them if window is None or max(abs(one[1] - rows), abs(one[2] - columns)) <= 1]
        match = min(near, key=lambda one: float((one[3] - patch).norm()))
        group = [one[3] for one in all_of_them if window is None or one[1:3] == match[1:3]]
        group = sorted(group, key=lambda one: float((one - match[3]).norm()))[:4]
        distances = torch.stack([(patch - one).norm() for one in group]).exp()
        assert float(weight) == pytest.approx(float(1 - distances[0] / distances.sum()), rel=1e-4, abs=1e-6)


def test_means_are_those_of_content() -> None:
    comparison = fitted_within(lambda: PooledComparison(None, 2))
    assert isinstance(comparison, PooledComparison)
    mask = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(3)) > 0.4
    maps, scores = comparison(QUERIES, mask)
    assert scores is not None
    means = torch.stack(
        [image.flatten(1)[:, kept.flatten()].mean(dim=1) for image, kept in zip(NORMAL, MASK, strict=True)]
    )
    for query, kept, score in zip(QUERIES, mask, scores, strict=True):
        vector = query.flatten(1)[:, kept.flatten()].mean(dim=1)
        assert float(score) == pytest.approx(float((vector - means).norm(dim=1).sort().values[:2].mean()), rel=1e-5)
    known = comparison.known(3, 4)
    assert known is not None
    assert torch.equal(known, MASK.any(dim=0))
    assert not maps[:, ~known].any()
    row, column = known.nonzero()[0].tolist()
    seen = NORMAL[MASK[:, row, column]][:, :, row, column]
    assert torch.allclose(comparison.positions.means[:, row, column], seen.mean(dim=0))


def test_a_coreset_is_of_content_alone() -> None:
    features, mask = torch.randn(40, 5, 2, 2, generator=torch.Generator().manual_seed(0)), torch.ones(40, 2, 2) > 0
    mask[3:, 0, 0], mask[:10, 1, 1] = False, False
    comparison = PatchComparison(40, 0, 0)
    for batch, kept in zip(torch.split(features, 7), torch.split(mask, 7), strict=True):
        comparison.update(batch, kept)
    comparison.fit()
    bank, padding = comparison.bank.features, comparison.bank.padding
    assert bank.shape == (4, 10, 5)
    assert padding is not None
    assert padding.sum(dim=1).tolist() == [7, 0, 0, 0]
    for group, kept, rows in zip(features.flatten(2).permute(2, 0, 1), mask.flatten(1).T, bank, strict=True):
        own = rows[rows.isfinite().all(dim=1)]
        same = (own[:, None] == group[kept]).all(dim=2)
        assert same.any(dim=1).all()
        assert same.sum(dim=0).max() == 1  # none twice


def test_a_window_beyond_the_grid_reaches_every_position_and_no_further() -> None:
    around, inside = neighbourhood(3, 2, 10**9)
    assert around.shape == (6, 25)
    assert (inside.sum(dim=1) == 6).all()
    assert all(set(row) == set(range(6)) for row in around.tolist())
