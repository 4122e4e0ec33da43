"""Output of a study: study.md with its tables, study.csv with one row per cell, and one chart per data set."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg

from ccd_lightning.studies.plan import Step
from ccd_lightning.studies.record import run_of
from ccd_lightning.studies.results import StudyResults
from ccd_lightning.studies.tables import study_markdown, title
from ccd_lightning.visualization.figures import DPI
from ccd_lightning.visualization.study_figures import Dot, interval_figure
from ccd_lightning.writing import atomic_write

MARKDOWN, TABLE, FIGURES = "study.md", "study.csv", "figures"


def write_output(results: StudyResults, failed: Mapping[str, str]) -> list[Path]:
    """Writes the tables and figures of a study.

    Args:
        results: Results of the finished cells.
        failed: Reasons of failed runs, by the run's title.

    Returns:
        Paths of study.md, study.csv and the figures.
    """
    folder = results.study.output
    (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    charts = {data: file for data in results.study.sets if (file := _write_chart(results, data))}
    names = {data: os.path.relpath(file, folder) for data, file in charts.items()}
    with atomic_write(folder / MARKDOWN) as partial:
        partial.write_text(study_markdown(results, names, failed), encoding="utf-8")
    _write_table(results, folder / TABLE)
    return [folder / MARKDOWN, folder / TABLE, *charts.values()]


def _write_table(results: StudyResults, file: Path) -> None:
    """Writes one row per cell: set, encoder, detector and seed, metrics, cost, and run."""
    progress, cells = results.progress, [cell for cells in results.cells.values() for cell in cells]
    metrics = list(dict.fromkeys(name for cell in cells for name in cell.results.evaluation.metrics))
    head = ["set", "encoder", "detector", "seed", "status", *metrics]
    with atomic_write(file) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*head, "fit_seconds", "test_seconds", "memory_bytes", "gpu_memory_bytes", "run"])
        found = {cell.step.folder: cell.results.evaluation.metrics for cell in cells}
        for step in progress.steps:
            if step.is_cell:
                own = found.get(step.folder, {})
                values = [own.get(metric, "") for metric in metrics]
                status = progress.status[step.folder]
                where = [step.data, step.encoder, step.detector, step.seed, status]
                writer.writerow([*where, *values, *_cost(results, step)])


def _cost(results: StudyResults, step: Step) -> list[object]:
    record = results.progress.records.get(step.folder)
    if record is None:
        return [""] * 5
    seconds = [f"{record.seconds[name]:.1f}" if name in record.seconds else "" for name in ("fit", "test")]
    run = os.path.relpath(run_of(step, record), results.study.output)
    return [*seconds, record.memory or "", record.gpu_memory or "", run]


def _write_chart(results: StudyResults, data: str) -> Path | None:
    """Writes the chart of a data set, and its values as CSV. Returns None if no cell is finished."""
    study, panels = results.study, dict[str, list[Dot]]()
    file = study.output / FIGURES / f"{data}.png"
    rows: list[list[object]] = []
    for metric in results.metrics(data):
        for detector in study.detectors:
            for encoder in study.encoders:
                if found := results.summary(data, encoder, detector, metric):
                    panels.setdefault(title(metric), []).append(Dot(detector, encoder, found.mean, found.interval))
                    ends = found.interval or ("", "")
                    rows.append([metric, encoder, detector, found.mean, *ends, found.over, found.seeds])
    if not panels:
        return None
    figure = interval_figure(data, panels)
    FigureCanvasAgg(figure)
    with atomic_write(file) as partial:
        figure.savefig(partial, format="png", dpi=DPI)
    with atomic_write(file.with_suffix(".csv")) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["metric", "encoder", "detector", "mean", "low", "high", "interval_over", "seeds"])
        writer.writerows(rows)
    return file
