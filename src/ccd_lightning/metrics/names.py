"""Main metrics, which are shown in the terminal. All metrics are in metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAIN = (
    "image/auroc",
    "image/average_precision",
    "image/sensitivity",
    "image/specificity",
    "image/sensitivity_at_specificity_95",
    "pixel/auroc",
    "pixel/average_precision",
    "pixel/aupro",
    "pixel/dice",
)


def partly_masked(data: Mapping[str, Any]) -> str:
    """Returns a sentence on the images used for pixel metrics; empty if all abnormal images have a mask, or none has.

    Args:
        data: Content of metrics.json.
    """
    masks, abnormal = data.get("masks", 0), data.get("abnormal", 0)
    if not 0 < masks < abnormal:
        return ""
    return f"Pixel metrics are of {masks} of the {abnormal} abnormal images, those with a mask, and of all normal ones."
