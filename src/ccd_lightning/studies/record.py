"""What is kept of each run of a study beside it: whether it is finished, what it took, why it failed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import mean
from typing import Literal

from ccd_lightning.reading import read_text
from ccd_lightning.reporting.metrics_json import METRICS
from ccd_lightning.runs import RECORD as FITTED
from ccd_lightning.studies.plan import Step
from ccd_lightning.writing import atomic_write

FILE = "study.json"
Status = Literal["done", "to test", "interrupted", "failed", "changed", "to do"]


@dataclass
class Record:
    """What is kept of a run.

    Attributes:
        digest: Of what decided its result.
        words: Its fit.
        run: The name of its folder.
        seconds: Of each command, "fit" and "test", interrupted ones included.
        memory: Peak of the main memory in bytes, the largest of its commands; None where it cannot be measured.
        gpu_memory: Peak of the GPU's memory in bytes; None without one.
        failed: Why it failed; "" if it did not.
    """

    digest: str
    words: list[str]
    run: str
    seconds: dict[str, float] = field(default_factory=dict)
    memory: int | None = None
    gpu_memory: int | None = None
    failed: str = ""

    def write(self, place: Path) -> None:
        """Writes it beside the runs of a place."""
        place.mkdir(parents=True, exist_ok=True)
        with atomic_write(place / FILE) as partial:
            partial.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @property
    def total(self) -> float:
        """Seconds of all commands."""
        return sum(self.seconds.values())


def read_record(step: Step) -> Record | None:
    """What is kept of a run; None where nothing is, or it cannot be read."""
    try:
        record = Record(**json.loads(read_text(step.place / FILE)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return record


def run_of(step: Step, record: Record) -> Path:
    """The folder of a run."""
    return step.place / record.run


def status(step: Step) -> Status:
    """How far a run is; "changed" where config, options or weights are others than those it was begun with."""
    record = read_record(step)
    if record is None:
        return "to do"
    run = run_of(step, record)
    if record.digest != step.digest:
        return "changed" if run.is_dir() else "to do"
    fitted, tested = ((run / name).is_file() for name in (FITTED, METRICS))
    if fitted and (tested or not step.is_cell):
        return "done"
    if record.failed:
        return "failed"
    return "to test" if fitted else "interrupted" if run.is_dir() else "to do"


class Progress:
    """How far the runs of a study are.

    Args:
        steps: All runs.

    Attributes:
        status: Of each run, by its folder.
        records: Of those that have one, by their folders.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.status = {step.place: status(step) for step in steps}
        self.records = {step.place: record for step in steps if (record := read_record(step))}

    def update(self, step: Step) -> None:
        """Looks at a run once more."""
        self.status[step.place] = status(step)
        if record := read_record(step):
            self.records[step.place] = record

    def due(self, steps: Sequence[Step]) -> list[Step]:
        """Those of some runs that are to be run, in order, and the pretraining that they need."""
        places = {step.place for step in steps if step.is_cell and self.status[step.place] != "done"}
        for step in reversed(self.steps):  # what a run needs stands before it
            if step.place in places and not self._is_fitted(step):
                places |= {need.place for need in step.needs if self.status[need.place] != "done"}
        return [step for step in self.steps if step.place in places]

    def _is_fitted(self, step: Step) -> bool:
        return self.status[step.place] in ("done", "to test")

    def estimate(self, step: Step) -> float | None:
        """Seconds that a run will take, as finished ones of the same kind took, or of the same method on the set.

        Returns:
            None where nothing comparable is finished.
        """
        alike = [other for other in self.steps if other.detector == step.detector and other.data == step.data]
        same = [other for other in alike if other.encoder == step.encoder]
        for candidates in (same, alike if step.is_cell else []):
            times = [self.records[one.place].total for one in candidates if self.status[one.place] == "done"]
            if times := [seconds for seconds in times if seconds]:
                return mean(times)
        return None


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))
