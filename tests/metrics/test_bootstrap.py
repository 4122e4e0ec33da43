import numpy as np
import pytest
from scipy.special import expit

from ccd_lightning.metrics.bootstrap import bootstrap, bootstrap_interval, is_grouped, smaller_class, units
from ccd_lightning.metrics.intervals import wilson_interval
from ccd_lightning.metrics.records import ImageRecord
from ccd_lightning.metrics.types import Floats


def records(labels: list[int], groups: list[str] | None = None) -> list[ImageRecord]:
    names = groups or [""] * len(labels)
    pairs = zip(labels, names, strict=True)
    return [ImageRecord(f"{index}.png", label, "", 0.0, group) for index, (label, group) in enumerate(pairs)]


def draws(rows: list[ImageRecord], resamples: int = 300, seed: int = 0) -> Floats:
    """(resamples, N): how often each image was drawn."""
    found = bootstrap(rows, lambda drawn: {str(i): drawn[:, i] for i in range(len(rows))}, resamples, seed)
    return np.stack([found[str(i)] for i in range(len(rows))], axis=1)


def test_images_are_drawn_within_their_class() -> None:
    drawn = draws(records([0] * 7 + [1] * 4))
    assert drawn.shape == (300, 11)
    assert (drawn[:, :7].sum(axis=1) == 7).all()
    assert (drawn[:, 7:].sum(axis=1) == 4).all()
    assert (drawn.max(axis=0) > 1).all()


def test_draws_are_those_of_sampling_with_replacement() -> None:
    drawn = draws(records([0] * 10 + [1] * 10), 20_000)
    assert drawn.mean(axis=0) == pytest.approx(np.ones(20), abs=0.04)
    assert drawn.var(axis=0) == pytest.approx(np.full(20, 0.9), abs=0.05)  # binomial, 10 times a tenth
    assert np.cov(drawn[:, 0], drawn[:, 1])[0, 1] == pytest.approx(-0.1, abs=0.03)


def test_groups_stay_together_and_no_class_gets_lost() -> None:
    rows = records([0, 0, 0, 1, 0, 1, 1, 1, 0, 1], ["a", "a", "b", "b", "c", "c", "d", "d", "", ""])
    assert is_grouped(rows)
    assert smaller_class(rows) == 4  # normal: a, b, c and one alone; abnormal: b, c, d and one alone
    drawn = draws(rows)
    for group in ("a", "b", "c", "d"):
        members = [index for index, row in enumerate(rows) if row.group == group]
        assert (drawn[:, members] == drawn[:, members[:1]]).all()
    assert (drawn[:, [2, 4]].sum(axis=1) == 2).all()  # groups with both classes replace each other only
    labels = np.array([row.label for row in rows])
    assert (drawn[:, labels == 0].sum(axis=1) > 0).all()
    assert (drawn[:, labels == 1].sum(axis=1) > 0).all()


def test_images_without_a_group_are_on_their_own() -> None:
    rows = records([0, 1, 0, 1], ["", "", "x", "x"])
    assert units(rows).tolist() == [0, 1, 2, 2]
    assert not is_grouped(records([0, 1, 0], ["", "x", "y"]))


def test_draws_depend_on_the_seed_alone() -> None:
    rows = records([0] * 5 + [1] * 5)
    assert np.array_equal(draws(rows, 250), draws(rows, 250))
    assert not np.array_equal(draws(rows, 250), draws(rows, 250, seed=1))


def test_interval_is_the_normal_one_where_values_are_normal_on_the_logit_scale() -> None:
    values = expit(1.5 + 0.1 * np.random.default_rng(0).normal(size=20_000))
    expected = expit([1.5 - 0.196, 1.5 + 0.196])
    assert bootstrap_interval(values, float(expit(1.5)), 10) == pytest.approx(expected, abs=2e-3)


def test_a_perfect_metric_is_not_certain() -> None:
    assert bootstrap_interval(np.ones(100), 1.0, 12) == pytest.approx(wilson_interval(12, 12))
    assert bootstrap_interval(np.zeros(100), 0.0, 12) == pytest.approx(wilson_interval(0, 12))
    assert bootstrap_interval(np.full(100, 0.5), 0.5, 12) == pytest.approx(wilson_interval(6, 12))
    low, high = bootstrap_interval(np.linspace(0.2, 1, 1001), 1.0, 12)
    assert (low, high) == pytest.approx((0.22, 1.0))
