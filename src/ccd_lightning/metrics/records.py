"""Records of tested images, and results of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

NO_ABNORMAL = "no abnormal images"
NO_NORMAL = "no normal images"


class ImageRecord(NamedTuple):
    """One tested image.

    Attributes:
        path: Path of the image file.
        label: 0 (normal), 1 (abnormal), or -1 (unlabelled).
        anomaly_type: Kind of abnormality.
        score: Image score; higher is more abnormal.
        group: Patient or video; "" if unknown.
        area: Share of the image that is covered by its mask, in [0, 1]; None without a mask.
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
        """Adds the results of another evaluation; those of a subset of the images are named `<name>/<subset>`."""
        end = f"/{subset}" if subset else ""
        self.metrics |= {f"{name}{end}": value for name, value in other.metrics.items()}
        self.intervals |= {f"{name}{end}": ends for name, ends in other.intervals.items()}
        self.undefined |= {f"{name}{end}": reason for name, reason in other.undefined.items()}

    def undefine(self, names: Iterable[str], reason: str) -> None:
        """Marks metrics as undefined for the given reason."""
        self.undefined |= dict.fromkeys(names, reason)
