"""Tables of a study in study.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean

from ccd_lightning.data.walking import count
from ccd_lightning.memory import size
from ccd_lightning.metrics.definitions import MEASURES
from ccd_lightning.metrics.names import partly_masked
from ccd_lightning.studies.definition import PublishedFigure
from ccd_lightning.studies.plan import LOCAL, PRETRAINING
from ccd_lightning.studies.record import Record, duration
from ccd_lightning.studies.results import TESTED, Comparison, StudyResults, Summary

NONE = "-"
HOW_TO_READ = """\
Each figure is the mean over seeds. Brackets are 95% intervals over seeds (Student's t), which describe the variation
between seeds. With one seed, or if all seeds give the same value, they are intervals over test images (marked *), which
describe the variation between test images."""
TESTS = """\
Differences of the mean image AUROC of two encoders with the same detector. Interval and p value treat both seeds and
test images as random (Obuchowski and Rockette's analysis with seeds as readers; with one seed, DeLong's test over
images). With two seeds the test rejects too often. p values are two-sided, and corrected for the {count} comparisons on
this data set (Holm). Other metrics: mean difference and 95% interval over seeds."""
COST = """\
Mean time of a run (a detector's fit and test together), and the largest peak of the main process's memory."""


def study_markdown(results: StudyResults, charts: Mapping[str, str], failed: Mapping[str, str]) -> str:
    """Returns all tables as Markdown.

    Args:
        results: Results of the study.
        charts: Path of each data set's chart, relative to the document.
        failed: Reasons of failed runs, by the run's title.
    """
    study, progress = results.study, results.progress
    cells = [step for step in progress.steps if step.is_cell]
    done = sum(progress.status[step.folder] == "done" for step in cells)
    seeds = ", ".join(map(str, study.seeds))
    blocks = [
        f"# {study.output.name}",
        f"{done} of {len(cells)} cells are finished: {count(len(study.encoders), 'encoder')},"
        f" {count(len(study.detectors), 'detector')}, {count(len(study.sets), 'data set')}, seeds {seeds}.",
        HOW_TO_READ,
        *(f"**Warning:** {warning}" for warning in results.warnings()),
    ]
    for data in study.sets:
        blocks += [f"## {data}", *_set_blocks(results, data, charts.get(data))]
    if study.published:
        blocks += ["## Published figures", *_sources(study.published)]
    if failed:
        blocks += ["## Failed", "\n".join(f"- {title}: {reason}" for title, reason in failed.items())]
    return "\n\n".join(blocks) + "\n"


def _set_blocks(results: StudyResults, data: str, chart: str | None) -> Iterable[str]:
    cells = results.of_set(data)
    published = [figure for figure in results.study.published if figure.data == data]
    if counts := results.counts(data):
        yield "Trained on {} normal images, tested on {} normal and {} abnormal ones.".format(*counts)
    elif not cells:
        yield "No cell is finished."
    if cells and (note := partly_masked(cells[0].results.data)):
        yield note
    shown = list(dict.fromkeys([*results.metrics(data), *(figure.metric for figure in published)]))
    for metric in shown:
        yield f"### {title(metric)}"
        yield _metric_table(results, data, metric, [figure for figure in published if figure.metric == metric])
    if chart:
        yield f"![{data}]({chart})"
    compared, reasons = results.comparisons(data)
    if compared:
        yield "### Differences between encoders"
        yield TESTS.format(count=len(compared))
        yield _comparison_table(compared)
    yield from (f"Not compared: {reason}" for reason in reasons)
    if cells:
        yield "### Cost"
        yield COST
        yield _cost_table(results, data)


def _metric_table(results: StudyResults, data: str, metric: str, published: Sequence[PublishedFigure]) -> str:
    detectors = list(results.study.detectors)
    numbers = {source: number for number, source in enumerate(_numbered(results.study.published), 1)}
    rows = []
    for encoder in results.study.encoders:
        own = [figure for figure in published if figure.encoder == encoder]
        cells = [results.summary(data, encoder, detector, metric) for detector in detectors]
        quoted = ", ".join(_published(figure, numbers) for figure in own)
        rows.append([encoder, *(_summary(cell, len(results.study.seeds)) for cell in cells), quoted])
    for figure in published:
        if figure.encoder is None:
            rows.append(["published", *[""] * len(detectors), _published(figure, numbers)])
    if not published:
        return table(["encoder", *detectors], [row[:-1] for row in rows])
    return table(["encoder", *detectors, "published"], rows)


def _published(figure: PublishedFigure, numbers: Mapping[tuple[str, str], int]) -> str:
    method = f" {figure.method}" if figure.method else ""
    return f"{figure.value:.3f}{method} [{numbers[figure.source, figure.protocol]}]"


def _numbered(published: Iterable[PublishedFigure]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((figure.source, figure.protocol) for figure in published))


def _sources(published: Iterable[PublishedFigure]) -> Iterable[str]:
    lines = [f"{number}. {source}: {protocol}" for number, (source, protocol) in enumerate(_numbered(published), 1)]
    yield "Figures from papers are shown for comparison. They are only comparable if the protocol is the same."
    yield "\n".join(lines)


def _summary(cell: Summary | None, seeds: int) -> str:
    if cell is None:
        return NONE
    ends = f" [{cell.interval[0]:.3f}, {cell.interval[1]:.3f}]" if cell.interval else ""
    mark = "*" if ends and cell.over == "test images" else ""
    return f"{cell.mean:.3f}{ends}{mark}" + (f" ({cell.seeds} of {seeds} seeds)" if cell.seeds < seeds else "")


def _comparison_table(compared: Sequence[Comparison]) -> str:
    others = list(dict.fromkeys(metric for one in compared for metric in one.others))
    rows = [
        [
            one.detector,
            f"{one.encoders[0]} minus {one.encoders[1]}",
            str(one.seeds),
            _difference(one.test.difference, (one.test.low, one.test.high)),
            _probability(one.test.p),
            _probability(one.p_corrected),
            *(_difference(*one.others[metric]) if metric in one.others else NONE for metric in others),
        ]
        for one in compared
    ]
    return table(["detector", "encoders", "seeds", title(TESTED), "p", "p, corrected", *map(title, others)], rows)


def _difference(value: float, interval: tuple[float, float] | None) -> str:
    return f"{value:+.3f}" + (f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else "")


def _probability(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _cost_table(results: StudyResults, data: str) -> str:
    progress = results.progress
    columns = [PRETRAINING, LOCAL, *results.study.detectors]

    def cell(encoder: str, column: str) -> str:
        folders = [step.folder for step in progress.steps if step.kind == (data, encoder, column)]
        return _cost([progress.records[folder] for folder in folders if progress.status[folder] == "done"])

    rows = [[encoder, *(cell(encoder, column) for column in columns)] for encoder in results.study.encoders]
    kept = [index for index in range(len(columns) + 1) if index == 0 or any(row[index] != NONE for row in rows)]
    head = ["encoder", *(column.replace("_", " ") for column in columns)]
    return table([head[index] for index in kept], [[row[index] for index in kept] for row in rows])


def _cost(records: Sequence[Record]) -> str:
    if not records:
        return NONE
    memory = max((record.memory for record in records if record.memory), default=None)
    gpu = max((record.gpu_memory for record in records if record.gpu_memory), default=None)
    parts = [duration(mean(record.total for record in records))]
    parts += [size(memory)] if memory else []
    parts += [f"GPU {size(gpu)}"] if gpu else []
    return ", ".join(parts)


def title(metric: str) -> str:
    """Returns the title of a metric, such as "Image AUROC", or "Image AUROC, polyp" for a part of the images."""
    level, *parts = metric.split("/")
    known = MEASURES.get("/".join((level, *parts[:1])))
    return ", ".join((f"{level.capitalize()} {known.title}", *parts[1:])) if known else metric


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Formats a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
