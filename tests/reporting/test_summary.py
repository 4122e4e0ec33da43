from __future__ import annotations

import io

from rich.console import Console

from ccd_lightning.metrics.records import Evaluation
from ccd_lightning.reporting.summary import print_summary


def test_summary_shows_values_intervals_and_reasons() -> None:
    evaluation = Evaluation(
        {"image/specificity": 0.75, "image/auroc": 0.91234}, {"image/auroc": (0.85, 0.96)}, {"pixel/auroc": "no masks"}
    )
    console = Console(width=100, record=True, file=io.StringIO())
    evaluation.metrics |= {"image/f1": 0.5, "image/auroc/polyp": 0.8, "pixel/auroc/polyp": 0.7}
    print_summary(evaluation, console)
    lines = {line.split()[0]: line.split() for line in console.export_text().splitlines() if line.strip()}
    assert lines["image/auroc"] == ["image/auroc", "0.912", "0.850", "to", "0.960"]
    assert lines["image/specificity"] == ["image/specificity", "0.750"]
    assert "image/f1" not in lines
    assert lines["image/auroc/polyp"] == ["image/auroc/polyp", "0.800"]
    assert lines["pixel/auroc"] == ["pixel/auroc", "-", "undefined:", "no", "masks"]
