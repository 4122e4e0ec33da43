import numpy as np
import pytest
import torch

from ccd_lightning.models.rank_scores import rank_scores


def test_ranks_are_interpolated() -> None:
    normal = torch.tensor([1.0, 2.0, 4.0, 5.0, 9.0])
    inside = torch.tensor([1.0, 1.5, 2.0, 3.0, 4.9, 8.0, 9.0])
    expected = np.interp(inside.numpy(), normal.numpy(), (np.arange(5) + 0.5) / 5)
    assert np.allclose(rank_scores(inside, normal).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 30])
def test_no_two_scores_tie(count: int) -> None:
    normal = torch.rand(count, generator=torch.Generator().manual_seed(0)).sort().values + 3
    scores = torch.linspace(2.5, 6, 200)
    ranks = rank_scores(scores, normal)
    assert (ranks >= 0).all()
    assert (ranks[1:] >= ranks[:-1]).all()
    if count > 2:
        assert (ranks[1:] > ranks[:-1]).all()


def test_above_the_largest_the_slope_is_that_of_the_upper_half() -> None:
    normal = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    ranks = rank_scores(torch.tensor([4.0, 6.0, 8.0]), normal)
    assert torch.allclose(ranks.diff(), torch.full((2,), 0.5))


def test_equal_normal_scores_give_numbers() -> None:
    assert rank_scores(torch.tensor([0.0, 1.0, 2.0]), torch.ones(4)).isfinite().all()
