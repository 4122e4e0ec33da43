"""The stratified bootstrap: how metrics vary when other images of the same sort had been tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import expit, logit

from ccd_lightning.metrics.intervals import Z, wilson_interval
from ccd_lightning.metrics.records import ImageRecord
from ccd_lightning.metrics.types import Floats, Integers

RESAMPLES = 2000
SEED = 0
CHUNK = 100  # resamples that are in memory at once


def units(records: Sequence[ImageRecord]) -> Integers:
    """Which images are drawn together: (N,) the number of an image's group, or its own where no group is known."""
    names = [("group", row.group) if row.group else ("image", row.path) for row in records]
    numbers = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def is_grouped(records: Sequence[ImageRecord]) -> bool:
    """Whether some images belong together, so that they say less than as many independent ones."""
    return len(set(units(records).tolist())) < len(records)


def smaller_class(records: Sequence[ImageRecord]) -> int:
    """How many units (images or groups) the class has that has fewer, 0 where there is but one class."""
    numbers = units(records).tolist()
    return min(
        len({number for number, row in zip(numbers, records, strict=True) if row.label == label}) for label in (0, 1)
    )


def bootstrap(
    records: Sequence[ImageRecord],
    evaluate: Callable[[Floats], dict[str, Floats]],
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, Floats]:
    """Evaluates resamples of the images.

    Units (images, or groups where they are known) are drawn with replacement among those with normal images only, those
    with abnormal ones only, and those with both, so that no resample lacks a class.

    Args:
        records: N images.
        evaluate: From how often each image was drawn, (R, N), to each metric's values (R,).
        resamples: How many.
        seed: The draws depend on nothing else.

    Returns:
        Each metric's values, (resamples,).
    """
    rng = np.random.default_rng(seed)
    members, labels = units(records), np.array([row.label for row in records])
    count = int(members.max()) + 1
    holds = [np.bincount(members[labels == label], minlength=count) > 0 for label in (0, 1)]
    strata = [
        np.flatnonzero((holds[0] == normal) & (holds[1] == abnormal)) for normal, abnormal in ((1, 0), (0, 1), (1, 1))
    ]
    parts = []
    for start in range(0, resamples, CHUNK):
        drawn = np.zeros((min(CHUNK, resamples - start), count))
        for stratum in filter(len, strata):
            drawn[:, stratum] = rng.multinomial(len(stratum), np.full(len(stratum), 1 / len(stratum)), len(drawn))
        parts.append(evaluate(drawn[:, members]))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def bootstrap_interval(values: Floats, estimate: float, trials: int) -> tuple[float, float]:
    """95% interval around a metric, on the logit scale with the error that its values on resamples have.

    Average precision and the best of all thresholds come out too high on resamples, where images are drawn twice: the
    middle 95% of the values would be too high with them. `benchmarks/interval_coverage.py` compares intervals with the
    truth.

    Args:
        values: (R,), in [0, 1]; NaN, and left out, where a resample does not define the metric.
        estimate: The metric itself.
        trials: Number of units in the smaller class. A metric of 0 or 1, or one that no resample changes, is not
            certain: its interval is that of a proportion of so many trials, and holds the middle 95% of the values.
    """
    values = values[~np.isnan(values)]
    error = float(values.std())
    if error == 0 or estimate in (0.0, 1.0):
        low, high = wilson_interval(round(estimate * trials), trials)
        ends = np.quantile(values, (0.025, 0.975))
        return min(low, float(ends[0])), max(high, float(ends[1]))
    half = Z * error / (estimate * (1 - estimate))  # delta method, as for DeLong's
    return float(expit(logit(estimate) - half)), float(expit(logit(estimate) + half))
