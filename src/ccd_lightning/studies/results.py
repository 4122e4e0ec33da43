"""Results over the finished cells of a study: means with intervals, and paired tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ccd_lightning.data.manifest import Manifest
from ccd_lightning.errors import UserError
from ccd_lightning.metrics.bootstrap import smaller_class, units
from ccd_lightning.metrics.paired import holm
from ccd_lightning.metrics.seeds import SeedTest, mean_interval, seeds_test
from ccd_lightning.reporting.comparison import read_scores
from ccd_lightning.reporting.metrics_json import Results, read_metrics
from ccd_lightning.runs import MANIFEST
from ccd_lightning.studies.definition import Study
from ccd_lightning.studies.plan import Step
from ccd_lightning.studies.record import Progress, Record, run_of

TESTED = "image/auroc"


class Cell(NamedTuple):
    """A finished run of a cell: its definition, folder, test results and record."""

    step: Step
    run: Path
    results: Results
    record: Record


class Summary(NamedTuple):
    """A metric over the seeds of a cell.

    Attributes:
        mean: Mean over seeds.
        interval: 95% interval, None if there is none.
        over: What the interval is computed over, "seeds" or "test images".
        seeds: Number of seeds.
    """

    mean: float
    interval: tuple[float, float] | None
    over: str
    seeds: int


class Comparison(NamedTuple):
    """A comparison of two encoders with the same detector on the same set.

    Attributes:
        detector: Name of the detector.
        encoders: Names of the encoders. Differences are the first minus the second.
        seeds: Number of seeds that both have.
        test: Test of the image AUROC.
        p_corrected: p value, corrected for the number of comparisons on this set.
        others: Mean difference of other metrics and its 95% interval over seeds, if there is one.
    """

    detector: str
    encoders: tuple[str, str]
    seeds: int
    test: SeedTest
    p_corrected: float
    others: Mapping[str, tuple[float, tuple[float, float] | None]]


class StudyResults:
    """The finished cells of a study.

    Args:
        study: The study.
        progress: Progress of its runs.
    """

    def __init__(self, study: Study, progress: Progress) -> None:
        self.study, self.progress = study, progress
        self.cells: dict[tuple[str, str, str], list[Cell]] = {}
        for step in progress.steps:
            if step.is_cell and progress.status[step.folder] == "done":
                record = progress.records[step.folder]
                run = run_of(step, record)
                self.cells.setdefault(step.kind, []).append(Cell(step, run, read_metrics(run), record))

    def of_set(self, data: str) -> list[Cell]:
        """Returns the finished cells of a data set."""
        return [cell for kind, cells in self.cells.items() if kind[0] == data for cell in cells]

    def metrics(self, data: str) -> list[str]:
        """Returns the metrics of the tables that at least one cell of a data set has."""
        known = {name for cell in self.of_set(data) for name in cell.results.evaluation.metrics}
        return [metric for metric in self.study.metrics if metric in known]

    def counts(self, data: str) -> tuple[int, int, int] | None:
        """Returns the numbers of training, normal test and abnormal test images of a set; None without a cell."""
        for cell in self.of_set(data):
            found, manifest = cell.results.data, cell.run / MANIFEST
            if manifest.is_file():
                abnormal = int(found.get("abnormal", 0))
                return len(Manifest.read(manifest).select("train")), int(found["images"]) - abnormal, abnormal
        return None

    def warnings(self) -> list[str]:
        """Returns warnings about the data sets."""
        messages = []
        for data, known in self.study.sets.items():
            counts = self.counts(data)
            if counts and known.counts and known.counts != counts:
                train, normal, abnormal = known.counts
                messages.append(
                    f"{data}: {counts[0]} training images, {counts[1]} normal and {counts[2]} abnormal test images,"
                    f" but the study expects {train}, {normal} and {abnormal}."
                )
            tested = {(cell.results.data["images"], cell.results.data.get("abnormal")) for cell in self.of_set(data)}
            if len(tested) > 1:
                messages.append(f"{data}: cells were tested on different numbers of images; the data set has changed.")
        return messages

    def summary(self, data: str, encoder: str, detector: str, metric: str) -> Summary | None:
        """Summarises a metric of one cell. None if no run of it is finished, or the metric is undefined."""
        cells = self.cells.get((data, encoder, detector), [])
        found = [cell.results.evaluation for cell in cells if metric in cell.results.evaluation.metrics]
        if not found:
            return None
        values = [evaluation.metrics[metric] for evaluation in found]
        interval, over = mean_interval(values), "seeds"
        if interval is None:  # one seed, or seeds that do not change the value
            interval, over = found[0].intervals.get(metric), "test images"
        if interval:  # Student's t may exceed the range of the metric
            interval = max(interval[0], 0.0), min(interval[1], 1.0)
        return Summary(float(np.mean(values)), interval, over, len(values))

    def comparisons(self, data: str) -> tuple[list[Comparison], list[str]]:
        """Returns the paired tests on a data set, and the reasons why some could not be made."""
        made: list[Comparison] = []
        reasons: dict[str, None] = {}
        for detector in self.study.detectors:
            for pair in self.study.compare:
                sides = [self.cells.get((data, encoder, detector), []) for encoder in pair]
                try:
                    if found := _compare(detector, pair, self.study.metrics, *sides):
                        made.append(found)
                except UserError as error:
                    reasons[f"{detector}, {pair[0]} and {pair[1]}: {error}"] = None
        corrected = holm([one.test.p for one in made])
        return [one._replace(p_corrected=p) for one, p in zip(made, corrected, strict=True)], list(reasons)


def _compare(
    detector: str, pair: tuple[str, str], metrics: Iterable[str], first: Sequence[Cell], second: Sequence[Cell]
) -> Comparison | None:
    """Compares two encoders over the seeds that both have. None if there are none.

    Raises:
        UserError: If their runs were tested on different images, or on too few.
    """
    by_seed = [{cell.step.seed: cell for cell in cells} for cells in (first, second)]
    seeds = [seed for seed in by_seed[0] if seed in by_seed[1]]
    if not seeds:
        return None
    sides = [[cells[seed] for seed in seeds] for cells in by_seed]
    compared = read_scores({str(cell.run): cell.run for cells in sides for cell in cells})
    if smaller_class(compared.images) < 2:
        raise UserError("a paired test needs at least two normal and two abnormal images, or groups of them.")
    scores = [np.stack([compared.scores[str(cell.run)] for cell in cells]) for cells in sides]
    test = seeds_test(compared.labels, scores[0], scores[1], units(compared.images))
    return Comparison(detector, pair, len(seeds), test, test.p, dict(_others(metrics, *sides)))


def _others(
    metrics: Iterable[str], first: Sequence[Cell], second: Sequence[Cell]
) -> Iterable[tuple[str, tuple[float, tuple[float, float] | None]]]:
    """Yields the mean differences of metrics other than the tested one, with intervals over seeds."""
    for metric in metrics:
        sides = [[cell.results.evaluation.metrics.get(metric) for cell in cells] for cells in (first, second)]
        pairs = zip(*sides, strict=True)
        values = [one - other for one, other in pairs if one is not None and other is not None]
        if metric != TESTED and values:
            yield metric, (float(np.mean(values)), mean_interval(values))
