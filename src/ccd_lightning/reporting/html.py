"""A self-contained HTML report of a test, which can be sent, opened offline and printed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ccd_lightning.metrics.definitions import MEASURES
from ccd_lightning.reporting.content import Content, cell_of, measured, render
from ccd_lightning.writing import atomic_write

REPORT = "report.html"
TEMPLATE = Path(__file__).with_name("report.html.jinja")
# Headline metrics, in percent: titles, and meanings if those of MEASURES refer to fractions of 1.
HEADLINES = {
    "image/sensitivity": ("Abnormal images detected", ""),
    "image/specificity": ("Normal images correctly cleared", ""),
    "image/auroc": (
        "Image AUROC",
        "Probability that an abnormal image scores higher than a normal one; chance: 50%.",
    ),
    "pixel/auroc": (
        "Pixel AUROC",
        "Probability that a pixel of a lesion has a higher value than a normal one; chance: 50%.",
    ),
}
# All figures that a test may draw, in the order of the page: text for readers who cannot see them, and caption.
FIGURES = {
    "overlays.png": (
        "Rows of test images, each with its true outline, its anomaly map, and the map laid over the image.",
        "The abnormal images with the highest scores, those with the lowest scores (possible misses), the normal images"
        " with the highest scores (possible false alarms), and a typical normal image. The second column shows the true"
        " outline. In the overlays, as in those of ccd predict, a line surrounds regions above the maps of nearly all"
        " held-out normal images. All overlays have the same colour scale.",
    ),
    "histogram.png": (
        "Histograms of the image scores, one for each kind of image, with the threshold as a vertical line.",
        "Scores of normal and abnormal images; scores to the right of the line are called abnormal.",
    ),
    "roc.png": (
        "ROC curve, with a diagonal line for chance. Its area is the image AUROC in the table of results.",
        "Sensitivity against the false-positive rate at every threshold; the dot is the threshold in use.",
    ),
    "precision_recall.png": (
        "Precision-recall curve, with a horizontal line for chance. Its area is the average precision in the results.",
        "Precision (share of correct decisions among the images called abnormal) against recall (share of the"
        " abnormal images that are detected).",
    ),
}


def write_html(file: Path, content: Content, figures: Sequence[Path]) -> None:
    """Writes the report.

    Args:
        file: Path of the file to write.
        content: Content of the report.
        figures: Paths of the figures (PNG).
    """
    evaluation = content.evaluation
    names = measured(evaluation)
    cards = [
        {"title": title, "cell": cell_of(evaluation, name), "meaning": meaning or MEASURES[name].meaning}
        for name, (title, meaning) in HEADLINES.items()
        if name in names
    ]
    page = render(TEMPLATE, content, autoescape=True, cards=cards, figures=_figures(figures))
    with atomic_write(file) as partial:
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")  # names need not be UTF-8


def _figures(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Returns the figures as base64, in the order of FIGURES, with unknown ones last."""
    order = list(FIGURES)
    figures = []
    for file in sorted(files, key=lambda file: (order.index(file.name) if file.name in order else len(order), file)):
        text, caption = FIGURES.get(file.name, (file.stem, file.stem))
        data = base64.b64encode(file.read_bytes()).decode()
        wide = file.name in ("overlays.png", "histogram.png")
        figures.append({"text": text, "caption": caption, "data": data, "wide": wide})
    return figures
