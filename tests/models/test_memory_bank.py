import numpy as np
import pytest
import torch
from torch import Tensor

from ccd_lightning.models.coreset import greedy_coreset
from ccd_lightning.models.memory_bank import MemoryBank, nearest


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def covering_radius(features: Tensor, chosen: Tensor) -> float:
    return float(torch.cdist(features, chosen).amin(dim=1).max())


@pytest.mark.parametrize("sizes", [(60,), (1,) * 60, (7, 50, 3)])
def test_all_are_kept_where_there_is_room(sizes: tuple[int, ...]) -> None:
    features = draw(2, 60, 4)
    for size in (None, 120):
        bank = MemoryBank(size)
        for batch in torch.split(features, list(sizes), dim=1):
            bank.update(batch)
        bank.fit()
        assert torch.equal(bank.features, features)


def test_a_stream_is_reduced_in_bounded_memory_and_covers_as_well() -> None:
    features, bank = draw(2, 1000, 4), MemoryBank(80)
    collected = []
    for batch in torch.split(features, 25, dim=1):
        bank.update(batch)
        collected.append(sum(part.shape[1] for part in bank._collected))
    bank.fit()
    assert max(collected) <= 80
    assert bank.features.shape == (2, 40, 4)
    for group, kept in zip(features, bank.features, strict=True):
        at_once = group[greedy_coreset(group[None], 40)[0]]
        assert covering_radius(group, kept) < 1.5 * covering_radius(group, at_once)
        assert ((kept[:, None] == group).all(dim=2).any(dim=1)).all()  # nothing but what was seen


def test_nearest_neighbours_are_scikit_learns() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    bank, queries = draw(3, 50, 6) + 100, draw(3, 9, 6, seed=1) + 100  # far from 0, where squares lose digits
    distances, indices = nearest(queries, bank, 4)
    for group in range(3):
        oracle = neighbors.NearestNeighbors(n_neighbors=4, algorithm="brute").fit(bank[group].double().numpy())
        expected, found = oracle.kneighbors(queries[group].double().numpy())
        assert np.array_equal(indices[group].numpy(), found)
        assert np.allclose(distances[group].numpy(), expected, rtol=1e-5)


def test_there_are_no_more_neighbours_than_features() -> None:
    assert nearest(draw(1, 2, 3), draw(1, 2, 3), 5)[0].shape == (1, 2, 2)


def test_the_state_decides_how_large_a_bank_is() -> None:
    bank, empty = MemoryBank(), MemoryBank()
    bank.update(draw(2, 5, 3))
    bank.fit()
    assert set(bank.state_dict()) == {"features"}
    empty.load_state_dict(bank.state_dict())
    assert torch.equal(empty.features, bank.features)
    with pytest.raises(ValueError, match="No features"):
        bank.fit()
