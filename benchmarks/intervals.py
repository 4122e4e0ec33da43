"""Means with intervals over seeds, as the tables show them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

Floats = npt.NDArray[np.float64]


def interval(values: Floats) -> str:
    """Mean and 95% interval of a few values by Student's t; of one value itself, which has no interval."""
    mean = values.mean()
    if len(values) < 2:
        return f"{mean:.3f}"
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"
