"""Terminal output of a test."""

from __future__ import annotations

from itertools import chain

from rich.console import Console

from ccd_lightning.metrics.names import MAIN
from ccd_lightning.metrics.records import Evaluation
from ccd_lightning.text_tables import print_table


def print_summary(evaluation: Evaluation, console: Console | None = None, note: str = "") -> None:
    """Prints the main metrics with their intervals, and the reasons for undefined ones.

    The main metrics are `names.MAIN`, the image AUROC of each part of the abnormal images, and the metrics of
    pretraining.

    Args:
        evaluation: Metrics to print.
        console: Console to print to. None for stdout.
        note: Text printed below the table.
    """
    console = console or Console()
    rows = []
    parts = [name for name in evaluation.metrics if name.startswith(("image/auroc/", "pretext/"))]
    for name in chain(MAIN, parts):
        if name in evaluation.metrics:
            ends = evaluation.intervals.get(name)
            interval = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else ""
            rows.append([name, f"{evaluation.metrics[name]:.3f}", interval])
        elif name in evaluation.undefined:
            rows.append([name, "-", f"undefined: {evaluation.undefined[name]}"])
    print_table(["metric", "value", "95% interval"], rows, right=[1], console=console)
    if note:
        console.print(note, soft_wrap=True, highlight=False)
