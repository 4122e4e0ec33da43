import warnings
from typing import Any

import numpy as np
import pytest
import torch

from ccd_lightning.evaluation.dashboard import COLLAPSED, CollapseMonitor, pair_grid, view_grid
from ccd_lightning.evaluation.figures import Case
from ccd_lightning.evaluation.testing import limits
from ccd_lightning.models.heads import spread
from ccd_lightning.transforms.patches import CELLS


class Fake:
    """A trainer that has just logged a spread."""

    def __init__(self, value: float, name: str = "train/spread") -> None:
        self.callback_metrics = {"train/spread": torch.tensor(1.0), "train/loss": torch.tensor(0.0)}
        self.callback_metrics[name] = torch.tensor(value)


def watch(values: list[float], patience: int = 3, name: str = "train/spread") -> list[str]:
    monitor = CollapseMonitor(patience)
    module: Any = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for value in values:
            trainer: Any = Fake(value, name)
            monitor.on_train_batch_end(trainer, module, None, None, 0)
    return [str(warning.message) for warning in caught if "COLLAPSED" in str(warning.message)]


def test_collapse_is_told_once_and_says_what_to_change() -> None:
    told = watch([0.003] * 10)
    assert len(told) == 1
    for way_out in ("--model.optimizer.lr", "--model.warmup_steps", "--model.encoder.weights imagenet"):
        assert way_out in told[0]


def test_a_healthy_or_shortly_low_spread_is_not_a_collapse() -> None:
    assert watch([1.0] * 10) == []
    assert watch([0.01, 0.01, 0.7, 0.01, 0.01, 0.6]) == []


def test_features_are_watched_beside_projections() -> None:
    assert watch([0.2] * 10, name="train/feature_spread") == []
    assert len(watch([0.01] * 10, name="train/feature_spread")) == 1


def test_a_loss_that_is_no_number_is_told_too() -> None:
    assert len(watch([float("nan")] * 3)) == 1


def test_the_line_separates_collapsed_from_healthy_projections() -> None:
    generator = torch.Generator().manual_seed(0)
    point = torch.ones(64, 128) + 0.001 * torch.randn(64, 128, generator=generator)
    assert (
        spread(point)
        < min(COLLAPSED.values())
        < max(COLLAPSED.values())
        < spread(torch.randn(64, 128, generator=generator))
    )


def test_view_grid_has_a_row_a_view_and_a_column_a_distribution() -> None:
    views = torch.rand(3, 2, 4, 3, 8, 8)
    grid = view_grid(views)
    assert grid.shape == (3, 3 * 2 * 10 + 2, 4 * 10 + 2)
    assert torch.equal(grid[:, 2:10, 12:20], views[0, 0, 1])
    assert torch.equal(grid[:, 12:20, 2:10], views[0, 1, 0])


@pytest.mark.parametrize("cell", range(8))
def test_pair_grid_puts_the_second_patch_where_it_lies(cell: int) -> None:
    patches = torch.stack([torch.full((3, 4, 4), 0.2), torch.full((3, 4, 4), 0.8)])[None]
    board = pair_grid(patches, torch.tensor([cell]))[0]
    inner = board if board.shape == (12, 12) else board[6:18, 6:18]
    row, column = CELLS[cell]
    assert torch.allclose(inner[4:8, 4:8], torch.tensor(0.2))
    assert torch.allclose(inner[4 + 4 * row : 8 + 4 * row, 4 + 4 * column : 8 + 4 * column], torch.tensor(0.8))


def test_limits_reach_from_the_median_to_the_threshold() -> None:
    ramp = np.linspace(0, 10, 256).reshape(16, 16)
    case = Case(np.zeros((16, 16, 3)), ramp, None, "good", 10.0)
    low, high = limits([case], threshold=1e6)
    assert low == pytest.approx(5.0)
    assert high == 1e6
    assert limits([case], threshold=0.0)[1] == pytest.approx(9.95)
