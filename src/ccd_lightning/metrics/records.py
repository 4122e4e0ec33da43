"""What is kept of a tested image, and what a test finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

NO_ABNORMAL = "no abnormal images"
NO_NORMAL = "no normal images"


class ImageRecord(NamedTuple):
    """One tested image.

    Attributes:
        path: The image file.
        label: 0 (normal), 1 (abnormal), or -1 where nobody looked.
        anomaly_type: The sort of abnormality.
        score: Higher is more abnormal.
        group: Patient or video; "" where not known.
        area: Share of the image that its mask covers, in [0, 1]; None where there is no mask.
    """

    path: str
    label: int
    anomaly_type: str
    score: float
    group: str = ""
    area: float | None = None


@dataclass
class Evaluation:
    """Metrics by name, their 95% intervals (low, high), and the reason for each metric that is undefined."""

    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)

    def include(self, other: Evaluation, subset: str = "") -> None:
        """Adds what another evaluation says, as `<name>/<subset>` where it is about a part of the images."""
        end = f"/{subset}" if subset else ""
        self.metrics |= {f"{name}{end}": value for name, value in other.metrics.items()}
        self.intervals |= {f"{name}{end}": ends for name, ends in other.intervals.items()}
        self.undefined |= {f"{name}{end}": reason for name, reason in other.undefined.items()}

    def undefine(self, names: Iterable[str], reason: str) -> None:
        """Gives metrics the reason why they are absent."""
        self.undefined |= dict.fromkeys(names, reason)
