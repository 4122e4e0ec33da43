"""Stratified bootstrap: estimates how metrics vary between test sets from the same population."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import expit, logit

from ccd_lightning.metrics.intervals import Z, wilson_interval
from ccd_lightning.metrics.records import ImageRecord
from ccd_lightning.metrics.types import Floats, Integers

RESAMPLES = 2000
SEED = 0
CHUNK = 100  # resamples in memory at a time


def units(records: Sequence[ImageRecord]) -> Integers:
    """Returns the resampling unit of each image, (N,): its group, or the image itself if it has no group."""
    names = [("group", row.group) if row.group else ("image", row.path) for row in records]
    numbers = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def is_grouped(records: Sequence[ImageRecord]) -> bool:
    """Returns whether some images share a group and are therefore not independent."""
    return len(set(units(records).tolist())) < len(records)


def smaller_class(records: Sequence[ImageRecord]) -> int:
    """Returns the number of units (images or groups) in the smaller class; 0 if there is only one class."""
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
    """Evaluates metrics on resamples of the images.

    Units (groups if they are known, otherwise images) are drawn with replacement, separately from those with only
    normal images, only abnormal images, and both. So every resample contains both classes.

    Args:
        records: N images.
        evaluate: Function from the number of times each image was drawn, (R, N), to the values (R,) of each metric.
        resamples: Number of resamples.
        seed: Seed of the draws.

    Returns:
        Values (resamples,) of each metric.
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
    """Returns the 95% interval of a metric, on the logit scale with the bootstrap standard error.

    Percentile intervals would be too high for average precision and metrics at the best threshold: these are biased
    upwards on resamples, which contain images several times. `benchmarks/interval_coverage.py` measures the coverage.

    Args:
        values: Values of the metric on R resamples, in [0, 1], (R,). NaN values, where the metric is undefined, are
            ignored.
        estimate: Value of the metric on the test set.
        trials: Number of units in the smaller class. It is used if the metric is 0 or 1, or equal on all resamples: the
            interval is then that of a proportion of this many trials, widened to the middle 95% of the values.
    """
    values = values[~np.isnan(values)]
    error = float(values.std())
    if error == 0 or estimate in (0.0, 1.0):
        low, high = wilson_interval(round(estimate * trials), trials)
        ends = np.quantile(values, (0.025, 0.975))
        return min(low, float(ends[0])), max(high, float(ends[1]))
    half = Z * error / (estimate * (1 - estimate))  # delta method, as in `delong_interval`
    return float(expit(logit(estimate) - half)), float(expit(logit(estimate) + half))
