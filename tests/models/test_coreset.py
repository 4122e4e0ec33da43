import numpy as np
import pytest
import torch
from torch import Tensor

from ccd_lightning.models import coreset
from ccd_lightning.models.coreset import greedy_coreset


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["pairs", "blocks"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of choosing, with parts so small that there are several."""
    monkeypatch.setattr(coreset, "PAIRS", 2 * 40**2)
    if request.param == "blocks":
        for name, value in (("PAIRED", 0), ("BLOCK", 6), ("CENTRES", 4)):
            monkeypatch.setattr(coreset, name, value)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("count", [1, 7, 40])
def test_greedy_coreset_is_that_of_loops(count: int) -> None:
    features = draw(3, 40, 5)  # fewer dimensions than are projected to
    indices = greedy_coreset(features, count)
    for group, chosen in zip(features, indices, strict=True):
        centre = group.mean(dim=0)
        expected = [int(np.argmax([float((row - centre).norm()) for row in group]))]
        while len(expected) < count:
            distances = [min(float((row - group[index]).norm()) for index in expected) for row in group]
            expected.append(int(np.argmax([-1 if i in expected else one for i, one in enumerate(distances)])))
        assert chosen.tolist() == expected


@pytest.mark.usefixtures("way")
def test_rows_that_fill_up_are_chosen_last_and_change_nothing() -> None:
    features, padding = draw(2, 40, 5), torch.zeros(2, 40, dtype=torch.bool)
    padding[0, 3:20] = padding[1, 35:] = True
    indices = greedy_coreset(torch.where(padding[:, :, None], torch.inf, features), 40, padding=padding)
    for group, hidden, chosen in zip(features, padding, indices.tolist(), strict=True):
        shown = (~hidden).nonzero()[:, 0]
        assert chosen[: len(shown)] == shown[greedy_coreset(group[shown][None], len(shown))[0]].tolist()
        assert sorted(chosen) == list(range(40))


def test_large_groups_are_chosen_from_as_small_ones_are() -> None:
    features = draw(1, 5000, 4).double()
    few = greedy_coreset(features, 800)
    assert torch.equal(few, coreset._by_pairs(features, torch.full((1, 5000), torch.inf), few[:, 0], 800))


def test_a_projection_hardly_changes_how_well_all_are_covered() -> None:
    features = draw(1, 400, 300)
    exact, projected = (greedy_coreset(features, 60, dimensions)[0] for dimensions in (300, 128))
    radii = [covering_radius(features[0], features[0][indices]) for indices in (exact, projected)]
    assert radii[1] < 1.1 * radii[0]


@pytest.mark.usefixtures("way")
def test_none_is_chosen_twice_even_if_all_are_the_same() -> None:
    assert sorted(greedy_coreset(torch.ones(1, 6, 3), 6)[0].tolist()) == list(range(6))


def covering_radius(features: Tensor, chosen: Tensor) -> float:
    return float(torch.cdist(features, chosen).amin(dim=1).max())
