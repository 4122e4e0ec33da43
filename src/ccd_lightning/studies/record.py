"""Records of a study's runs, stored next to them: whether a run is finished, its cost, and why it failed."""

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
    """Record of a run.

    Attributes:
        digest: Digest of everything that determined the result.
        words: The fit command.
        run: Name of the run's folder.
        seconds: Duration of each command, "fit" and "test", including interrupted ones.
        memory: Peak main memory in bytes, the maximum over its commands. None if it cannot be measured.
        gpu_memory: Peak GPU memory in bytes, None without a GPU.
        failed: Why it failed, "" if it did not.
    """

    digest: str
    words: list[str]
    run: str
    seconds: dict[str, float] = field(default_factory=dict)
    memory: int | None = None
    gpu_memory: int | None = None
    failed: str = ""

    def write(self, folder: Path) -> None:
        """Writes the record to the folder of the run's versions."""
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / FILE) as partial:
            partial.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @property
    def total(self) -> float:
        """Total duration of all commands in seconds."""
        return sum(self.seconds.values())


def read_record(step: Step) -> Record | None:
    """Reads the record of a run. None if there is none, or it cannot be read."""
    try:
        record = Record(**json.loads(read_text(step.folder / FILE)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return record


def run_of(step: Step, record: Record) -> Path:
    """Returns the folder of a run."""
    return step.folder / record.run


def status(step: Step) -> Status:
    """Returns the status of a run: "changed" if config, options or weights differ from those it began with."""
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
    """Progress of a study's runs.

    Args:
        steps: All runs.

    Attributes:
        status: Status of each run, by its folder.
        records: Records of the runs that have one, by their folders.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.status = {step.folder: status(step) for step in steps}
        self.records = {step.folder: record for step in steps if (record := read_record(step))}

    def update(self, step: Step) -> None:
        """Updates the status and the record of a run."""
        self.status[step.folder] = status(step)
        if record := read_record(step):
            self.records[step.folder] = record

    def due(self, steps: Sequence[Step]) -> list[Step]:
        """Returns which of some runs must be executed, in order, including the pretraining that they need."""
        folders = {step.folder for step in steps if step.is_cell and self.status[step.folder] != "done"}
        for step in reversed(self.steps):  # a run comes after the runs it needs
            if step.folder in folders and not self._is_fitted(step):
                folders |= {need.folder for need in step.needs if self.status[need.folder] != "done"}
        return [step for step in self.steps if step.folder in folders]

    def _is_fitted(self, step: Step) -> bool:
        return self.status[step.folder] in ("done", "to test")

    def estimate(self, step: Step) -> float | None:
        """Estimates the seconds a run takes, from finished runs of the same kind, or of the same method and set.

        Returns:
            The estimate, or None if no comparable run is finished.
        """
        alike = [other for other in self.steps if other.detector == step.detector and other.data == step.data]
        same = [other for other in alike if other.encoder == step.encoder]
        for candidates in (same, alike if step.is_cell else []):
            times = [self.records[one.folder].total for one in candidates if self.status[one.folder] == "done"]
            if times := [seconds for seconds in times if seconds]:
                return mean(times)
        return None


def duration(seconds: float) -> str:
    """Formats seconds as hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))
