from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from ccd_lightning.metrics.intervals import (
    delong_covariance,
    delong_interval,
    delong_test,
    false_positive_interval,
    placements,
    wilson_interval,
)

LABELS = np.repeat([0, 1], [12, 9])
FIRST = np.array(
    [1.2, 0.4, 2.2, 3.1, 1.9, 0.8, 2.7, 1.1, 0.3, 2.2, 1.6, 3.4, 2.2, 3.9, 2.8, 4.4, 1.7, 3.1, 5.0, 2.9, 3.6]
)
SECOND = np.array(
    [2.0, 1.5, 0.9, 2.4, 3.0, 1.1, 2.2, 2.6, 1.7, 0.6, 2.4, 1.9, 2.4, 2.1, 3.5, 2.8, 1.2, 4.0, 2.6, 3.0, 2.4]
)


def test_wilson_interval_agrees_with_scipy() -> None:
    for successes, trials in ((0, 7), (3, 7), (7, 7), (90, 100)):
        expected = binomtest(successes, trials).proportion_ci(method="wilson")
        assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_interval_of_none_and_of_all_ends_at_0_and_1() -> None:
    for trials in range(1, 200):
        assert wilson_interval(0, trials)[0] == 0.0
        assert wilson_interval(trials, trials)[1] == 1.0


def test_delong_interval_agrees_with_loops_from_the_paper() -> None:
    # DeLong et al. 1988, equations 4 to 8: structural components, then the variance of the area.
    rng = np.random.default_rng(0)
    normal, abnormal = rng.normal(0, 1, 9).round(1), rng.normal(1, 2, 7).round(1)
    normal[0] = abnormal[0]  # a tie across the classes

    def kernel(high: float, low: float) -> float:
        return 1.0 if high > low else 0.5 if high == low else 0.0

    of_abnormal = [sum(kernel(x, y) for y in normal) / len(normal) for x in abnormal]
    of_normal = [sum(kernel(x, y) for x in abnormal) / len(abnormal) for y in normal]
    area = sum(of_abnormal) / len(abnormal)
    s10 = sum((value - area) ** 2 for value in of_abnormal) / (len(abnormal) - 1)
    s01 = sum((value - area) ** 2 for value in of_normal) / (len(normal) - 1)
    variance = s10 / len(abnormal) + s01 / len(normal)
    half = 1.959964 * np.sqrt(variance) / (area * (1 - area))
    expected = [1 / (1 + np.exp(-(np.log(area / (1 - area)) + sign * half))) for sign in (-1, 1)]
    assert placements(normal, abnormal) == pytest.approx(np.array(of_abnormal))
    assert delong_interval(normal, abnormal) == pytest.approx(expected, abs=1e-6)


def test_delong_interval_covers_the_true_area() -> None:
    rng = np.random.default_rng(0)
    truth = 0.760250  # Phi(1 / sqrt(2)): two normal distributions one standard deviation apart
    covered = 0
    for _ in range(400):
        low, high = delong_interval(rng.normal(0, 1, 40), rng.normal(1, 1, 40))
        covered += low <= truth <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_perfect_separation_is_not_certainty() -> None:
    low, high = delong_interval(np.arange(10.0), np.arange(20.0, 40.0))
    assert 0.5 < low < 0.9
    assert high == pytest.approx(1.0)


def test_paired_test_agrees_with_the_published_implementation() -> None:
    # R 4.2.2, pROC 1.18.0: r1 <- roc(LABELS, FIRST, direction = "<"); r2 <- roc(LABELS, SECOND, direction = "<");
    # c(auc(r1), auc(r2), var(r1), var(r2), cov(r1, r2)); roc.test(r1, r2, paired = TRUE, method = "delong")
    scores = (FIRST, SECOND)
    areas, covariance = delong_covariance([s[LABELS == 0] for s in scores], [s[LABELS == 1] for s in scores])
    assert areas.tolist() == pytest.approx([0.856481481481, 0.787037037037], abs=1e-12)
    expected = [[0.006677500312, 0.002575426331], [0.002575426331, 0.010782497038]]
    assert covariance == pytest.approx(np.array(expected), abs=1e-12)
    found = delong_test(LABELS, FIRST, SECOND)
    assert found.p == pytest.approx(0.531362933722, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((-0.148006866049, 0.286895754938), abs=1e-12)


@pytest.mark.parametrize("rows", [slice(10, None), slice(14)], ids=["normal", "abnormal"])
def test_two_images_of_a_class_are_enough_for_the_paired_test(rows: slice) -> None:
    # DeLong et al. 1988, with the differences of the structural components in place of the components.
    labels, scores = LABELS[rows], (FIRST[rows], SECOND[rows])
    assert min(np.bincount(labels)) == 2
    wins = np.zeros((2, (labels == 1).sum(), (labels == 0).sum()))  # of each detector, (abnormal, normal)
    for detector, own in enumerate(scores):
        for i, high in enumerate(own[labels == 1]):
            for j, low in enumerate(own[labels == 0]):
                wins[detector, i, j] = 1.0 if high > low else 0.5 if high == low else 0.0
    differences = wins[0] - wins[1]
    expected = differences.mean()
    error = np.sqrt(sum(differences.mean(axis=axis).var(ddof=1) / differences.shape[1 - axis] for axis in (0, 1)))
    found = delong_test(labels, *scores)
    assert found.difference == pytest.approx(expected)
    assert (found.low, found.high) == pytest.approx((expected - 1.959964 * error, expected + 1.959964 * error))
    assert found.p == pytest.approx(2 * norm.cdf(-abs(expected) / error))


def test_clustered_covariance_agrees_with_loops_from_the_paper() -> None:
    # Obuchowski 1997: components as DeLong's, summed over the m_i abnormal and n_i normal images of each cluster i.
    rng = np.random.default_rng(1)
    labels, clusters = rng.integers(0, 2, 40), rng.integers(0, 9, 40)
    labels[clusters == 3], labels[clusters == 5] = 0, 1  # some hold one class only
    scores = [np.round(rng.normal(size=40) + labels, 1) for _ in range(2)]
    total = [int((labels == label).sum()) for label in (0, 1)]

    def kernel(high: float, low: float) -> float:
        return 1.0 if high > low else 0.5 if high == low else 0.0

    sums: list[dict[int, list[float]]] = []  # of each detector: of each cluster, over its normal and abnormal images
    areas = []
    for own in scores:
        normal, abnormal = own[labels == 0], own[labels == 1]
        areas.append(sum(kernel(x, y) for x in abnormal for y in normal) / (total[0] * total[1]))
        parts: dict[int, list[float]] = {}
        for value, label, cluster in zip(own, labels, clusters, strict=True):
            if label:
                component = sum(kernel(value, y) for y in normal) / total[0]
            else:
                component = sum(kernel(x, value) for x in abnormal) / total[1]
            parts.setdefault(int(cluster), [0.0, 0.0])[label] += component - areas[-1]
        sums.append(parts)
    members = [set(clusters[labels == label].tolist()) for label in (0, 1)]
    both = members[0] | members[1]

    def expected(r: int, s: int) -> float:
        s01, s10 = (
            len(own) / ((len(own) - 1) * count) * sum(sums[r][i][label] * sums[s][i][label] for i in own)
            for label, (own, count) in enumerate(zip(members, total, strict=True))
        )
        s11 = [
            len(both) / (len(both) - 1) * sum(sums[a][i][1] * sums[b][i][0] for i in both) for a, b in ((r, s), (s, r))
        ]
        return s10 / total[1] + s01 / total[0] + sum(s11) / (total[0] * total[1])

    found = delong_covariance(
        [own[labels == 0] for own in scores],
        [own[labels == 1] for own in scores],
        (clusters[labels == 0], clusters[labels == 1]),
    )
    assert found[0] == pytest.approx(np.array(areas))
    assert found[1] == pytest.approx(np.array([[expected(r, s) for s in (0, 1)] for r in (0, 1)]), rel=1e-9)


def test_groups_of_one_image_change_nothing() -> None:
    alone = delong_test(LABELS, FIRST, SECOND)
    assert delong_test(LABELS, FIRST, SECOND, np.arange(21)[::-1] + 3) == pytest.approx(alone, abs=1e-12)


def test_images_that_are_copies_of_each_other_say_no_more_than_one() -> None:
    units = np.tile(np.arange(21), 5)
    copied = delong_test(np.tile(LABELS, 5), np.tile(FIRST, 5), np.tile(SECOND, 5), units)
    assert copied == pytest.approx(delong_test(LABELS, FIRST, SECOND), abs=1e-12)


def test_paired_test_is_antisymmetric_and_sees_the_order_of_scores_only() -> None:
    found, swapped = delong_test(LABELS, FIRST, SECOND), delong_test(LABELS, SECOND, np.exp(FIRST))
    assert (swapped.difference, swapped.low, swapped.high) == pytest.approx(
        (-found.difference, -found.high, -found.low)
    )
    assert swapped.p == pytest.approx(found.p)


def test_paired_test_of_scores_that_rank_alike_or_perfectly() -> None:
    assert delong_test(LABELS, FIRST, 3 * FIRST) == (0, 0, 0, 1)
    assert delong_test(LABELS, LABELS + 0.0, -LABELS + 0.0) == (1, 1, 1, 0)


def test_paired_test_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(ValueError, match="21 labels, but 21 and 20 scores"):
        delong_test(LABELS, FIRST, SECOND[1:])
    for rows in (slice(11, None), slice(13)):  # one normal image, one abnormal image
        with pytest.raises(ValueError, match="at least two normal and two abnormal"):
            delong_test(LABELS[rows], FIRST[rows], SECOND[rows])
    for own in (LABELS, 1 - LABELS):  # one class has units of its own, the other is one group
        with pytest.raises(ValueError, match="not all of one group"):
            delong_test(LABELS, FIRST, SECOND, own * np.arange(21))


def test_paired_test_is_wrong_as_often_as_it_says() -> None:
    rng, labels, small, held = np.random.default_rng(0), np.repeat([0, 1], [60, 50]), 0, 0
    for _ in range(600):  # two equally good detectors that share half of their noise
        shared = rng.normal(size=110) + 1.2 * labels
        found = delong_test(labels, shared + rng.normal(size=110), shared + rng.normal(size=110))
        small += found.p < 0.05
        held += found.low <= 0 <= found.high
    assert 0.03 <= small / 600 <= 0.075
    assert held == 600 - small


@pytest.mark.parametrize("mixed", [False, True])
def test_paired_test_of_grouped_images_is_wrong_as_often_as_it_says(mixed: bool) -> None:
    rng, groups, wrong = np.random.default_rng(0), np.arange(160) // 4, np.zeros(2)
    labels = np.arange(160) % 2 if mixed else groups % 2  # patients with both sorts of images, or with one
    for _ in range(600):  # two equally good detectors; patients differ, and so do errors on them
        shared = rng.normal(size=160) + rng.normal(size=40)[groups] + 1.5 * labels
        one, other = (shared + rng.normal(size=40)[groups] + rng.normal(size=160) / 2 for _ in range(2))
        wrong += [delong_test(labels, one, other, units).p < 0.05 for units in (groups, None)]
    assert 0.03 <= wrong[0] / 600 <= 0.08
    assert not 0.03 <= wrong[1] / 600 <= 0.1  # too many false alarms, or next to none and little power


@pytest.mark.parametrize(("count", "quantile"), [(1, 0.95), (2, 0.5), (7, 0.95), (12, 0.95), (21, 0.95), (100, 0.8)])
def test_the_rate_of_a_threshold_lies_in_its_interval(count: int, quantile: float) -> None:
    held_out = np.random.default_rng(0).uniform(size=(20_000, count))
    rates = 1 - np.quantile(held_out, quantile, axis=1)  # of uniform scores
    low, high = false_positive_interval(count, quantile)
    assert np.mean(rates < low) < 0.03
    assert np.mean(rates > high) < 0.03
    if (count - 1) * quantile % 1 == 0:  # one of the scores itself: the interval is exact
        assert [np.mean(rates < low), np.mean(rates > high)] == pytest.approx([0.025, 0.025], abs=0.004)


def test_false_positive_interval_of_few_held_out_images() -> None:
    assert false_positive_interval(1, 0.95) == pytest.approx((0.025, 0.975))
    assert false_positive_interval(12, 0.95) == pytest.approx((0.0021, 0.3848), abs=1e-4)
