"""`ccd compare`: compares the metrics of tested runs, and tests whether they differ significantly."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ccd_lightning.cli.arguments import Arguments, path_type
from ccd_lightning.errors import UserError
from ccd_lightning.metrics.names import MAIN, partly_masked
from ccd_lightning.reporting.comparison import Compared, read_scores
from ccd_lightning.reporting.metrics_json import Results, check_same_data, read_metrics, tested_run
from ccd_lightning.runs import how_to_test
from ccd_lightning.text_tables import print_table
from ccd_lightning.writing import atomic_write

Difference = tuple[float, float, float]  # difference, lower and upper end of its interval
FORMATS = (".png", ".pdf", ".svg")


def run_compare(argv: list[str]) -> None:
    """Prints the metrics with one column per run, and their differences from the first run."""
    arguments = _parser().parse_args(argv)
    output: Path | None = arguments.output
    if output and output.suffix.lower() not in FORMATS:
        raise UserError(f"{output}: the name of a picture ends in {', '.join(FORMATS)}.")
    runs = _find_runs(arguments.runs)
    results = {name: read_metrics(run) for name, run in runs.items()}
    check_same_data({name: result.data for name, result in results.items()})
    print_metrics(results, every=arguments.all)
    if len(runs) == 1 and not output:
        return
    compared = read_scores(runs)
    if len(runs) > 1:
        print_comparison(compared, runs, results)
    if output:
        draw(compared, output)


def _find_runs(paths: Iterable[Path]) -> dict[str, Path]:
    """Returns the folder of each tested run, by the path that was given.

    Raises:
        UserError: If there is none, or a run is given twice.
    """
    runs: dict[str, Path] = {}
    seen: dict[Path, Path] = {}
    for path in paths:
        run = runs[str(path)] = tested_run(path)
        if (other := seen.setdefault(run.resolve(), path)) is not path:
            raise UserError(f"{path}: the same run as {other}, so it is compared twice. Give each run once.")
    return runs


def _parser() -> Arguments:
    parser = Arguments(
        "ccd compare",
        description="Show the metrics of tested runs side by side, and compare each with the first by a paired test.",
    )
    parser.add_argument(
        "runs", nargs="+", type=path_type, metavar="RUN", help="a run's folder, or the folder of its versions"
    )
    parser.add_argument("--all", action="store_true", help="show every metric, not only the main ones")
    parser.add_argument(
        "--output",
        type=path_type,
        metavar="FILE",
        help=f"write the ROC curves of the runs to a file ({', '.join(FORMATS)})",
    )
    return parser


def print_metrics(results: Mapping[str, Results], every: bool) -> None:
    """Prints a table of metrics with one column per run."""
    known = {name: None for result in results.values() for name in result.evaluation.metrics}
    shown = known if every else [metric for metric in MAIN if metric in known]
    rows = [[metric, *(_cell(result, metric) for result in results.values())] for metric in shown]
    _print_table("metric", results, rows)
    print("in brackets: 95% intervals over test images")
    notes = {
        name: partly_masked(result.data)
        for name, result in results.items()
        if "pixel/auroc" in result.evaluation.metrics
    }
    for note in dict.fromkeys(filter(None, notes.values())):
        runs = [name for name, own in notes.items() if own == note]
        print(note if len(runs) == len(results) else f"{', '.join(runs)}: {note}")


def print_comparison(compared: Compared, runs: Mapping[str, Path], results: Mapping[str, Results]) -> None:
    """Prints the differences from the first run, with notes on how they were computed.

    Args:
        compared: Image scores.
        runs: Folders of the tested runs, by name.
        results: Metrics of the runs, by name.
    """
    from ccd_lightning.cli.compare_pixels import pixel_differences  # imports scipy, which takes a second
    from ccd_lightning.metrics.bootstrap import is_grouped, smaller_class, units

    images = compared.images
    if smaller_class(images) < 2:
        alike = np.bincount(compared.labels, minlength=2).min() > 1
        apart = ", each of at least two patients or videos" if alike else ""
        print(f"no paired test: it needs at least two normal and two abnormal images{apart}")
        return
    pixels, reasons = pixel_differences(compared, runs, results)
    print_differences(compared, pixels)
    if is_grouped(images):
        count = len(set(units(images).tolist()))
        print(
            f"images of a patient or video are treated as dependent: {count} groups in the test (Obuchowski's) and the"
            " bootstrap"
        )
    if not compared.groups_known and any(result.data.get("groups") != 0 for result in results.values()):
        commands = ", ".join(map(how_to_test, runs.values()))
        print(
            "no predictions.csv names patients or videos, so images are treated as independent; to change that:"
            f" {commands}"
        )
    for name in compared.regrouped:
        print(f"{runs[name]}/predictions.csv names other patients or videos, which are not used")
    for reason in reasons:
        print(reason)


def print_differences(compared: Compared, pixels: Mapping[str, Mapping[str, Difference]]) -> None:
    """Prints the differences of each run's metrics from the first run's, and DeLong's paired test of the image AUROC.

    Args:
        compared: Image scores.
        pixels: Differences of pixel metrics, by the run's name.
    """
    from ccd_lightning.metrics.bootstrap import units
    from ccd_lightning.metrics.intervals import delong_test
    from ccd_lightning.metrics.paired import holm, paired_differences

    images, labels = compared.images, compared.labels
    (first, reference), *others = compared.scores.items()
    tests = [delong_test(labels, own, reference, units(images)) for _, own in others]
    ps = [test.p for test in tests]
    bootstrapped = [paired_differences(images, own, reference) for _, own in others]
    rows = [["image/auroc", *(_difference(*test[:3]) for test in tests)], ["  p", *map(_probability, ps)]]
    if len(tests) > 1:
        rows.append(["  p, corrected", *map(_probability, holm(ps))])
    rows += [[metric, *(_difference(*found[metric]) for found in bootstrapped)] for metric in bootstrapped[0]]
    for metric in dict.fromkeys(metric for found in pixels.values() for metric in found):
        cells = (pixels.get(name, {}).get(metric) for name, _ in others)
        rows.append([metric, *(_difference(*cell) if cell else "-" for cell in cells)])
    print()
    _print_table(f"minus {first}", [name for name, _ in others], rows)
    correction = f", corrected for {len(tests)} comparisons by Holm's method" if len(tests) > 1 else ""
    print(f"image/auroc: DeLong's paired test, two-sided{correction}; the others: paired bootstrap")
    print("in brackets: 95% intervals over test images; they do not include the variation between seeds")


def draw(compared: Compared, output: Path) -> None:
    """Draws the ROC curves of the runs.

    Raises:
        UserError: If no ROC curve exists, because all images are normal or all are abnormal.
        OSError: If the file cannot be written.
    """
    if len(set(compared.labels.tolist())) < 2:
        raise UserError(f"{output}: not drawn. A ROC curve needs normal and abnormal test images.")
    from ccd_lightning.visualization.figures import roc_comparison_figure  # imports torch and matplotlib

    output.parent.mkdir(parents=True, exist_ok=True)
    figure = roc_comparison_figure(compared.scores, compared.labels)
    form = output.suffix.lower()[1:]
    with atomic_write(output) as partial:
        figure.savefig(partial, format=form, dpi=110, bbox_inches="tight")  # long names are wide
    print(f"\nROC curves: {output}")


def _print_table(title: str, runs: Collection[str], rows: Iterable[Sequence[str]]) -> None:
    print_table([title, *runs], rows, right=range(1, len(runs) + 1), in_blocks=True)


def _cell(result: Results, metric: str) -> str:
    found = result.evaluation
    if metric not in found.metrics:
        return f"- ({found.undefined.get(metric, 'not measured')})"
    ends = found.intervals.get(metric)
    interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""
    return f"{found.metrics[metric]:.3f}{interval}"


def _difference(value: float, low: float, high: float) -> str:
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def _probability(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
