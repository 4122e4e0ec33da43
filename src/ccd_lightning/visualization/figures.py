"""Figures of a tested run, as matplotlib figures that can be logged or saved."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from ccd_lightning.data.placement import Placement
from ccd_lightning.metrics import threshold_metrics as curves
from ccd_lightning.metrics.types import Floats
from ccd_lightning.visualization.overlays import COLOURS, colour_map, draw_overlay, scale_of
from ccd_lightning.visualization.palette import BLUE, GREY, ORANGE, line_styles

DPI = 160  # of files: about twice the number of pixels at which the report shows a figure


@dataclass(frozen=True)
class Case:
    """One tested image to show.

    Attributes:
        image: Image (H, W, 3) in [0, 1].
        anomaly_map: Anomaly map (H, W).
        mask: Mask (H, W) bool, None if unknown.
        anomaly_type: "good" or the kind of abnormality.
        score: Image score.
    """

    image: Floats
    anomaly_map: Floats
    mask: NDArray[np.bool_] | None
    anomaly_type: str
    score: float

    def title(self, threshold: float) -> str:
        """Returns kind, score and decision, one per line, such as "polyp", "12.3 > 10.9", "detected"."""
        normal = self.anomaly_type == "good"
        name = "normal" if normal else textwrap.fill(_shown(self.anomaly_type), 16)  # fits the height of a row
        if math.isnan(threshold):
            return f"{name}\n{self.score:.3g}"
        called = self.score > threshold
        verdict = ("false alarm" if called else "cleared") if normal else ("detected" if called else "missed")
        return f"{name}\n{self.score:.3g} {'>' if called else '≤'} {threshold:.3g}\n{verdict}"


def _shown(name: str) -> str:
    """Prepares a folder name for matplotlib: `$` begins no formula, and unprintable or non-UTF-8 signs become `?`."""
    return "".join(sign if sign.isprintable() else "?" for sign in name).replace("$", r"\$")


def _axes(figure: Figure, xlabel: str, ylabel: str, title: str) -> Axes:
    axes = figure.add_subplot()
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return axes


def roc_figure(scores: Floats, labels: NDArray[np.int64], threshold: float, caption: str) -> Figure:
    """Draws the ROC curve, with the operating point of the threshold.

    Args:
        scores: Image scores (N,).
        labels: Labels (N,), 0 or 1, both present.
        threshold: Images with a score above it are called abnormal.
        caption: Legend of the curve, such as the AUROC with its interval.
    """
    false, true = curves.roc(*curves.score_counts(labels, scores))
    figure = Figure(figsize=(4.5, 4.2), layout="constrained")
    axes = _axes(figure, "1 - specificity", "sensitivity", "ROC curve")
    axes.plot(false, true, color=BLUE, linewidth=2, label=caption)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="chance")
    alarm = scores > threshold
    axes.plot(alarm[labels == 0].mean(), alarm[labels == 1].mean(), "o", color=ORANGE, label="at the threshold")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.legend(loc="lower right", frameon=False)
    return figure


def roc_comparison_figure(scores: Mapping[str, Floats], labels: NDArray[np.int64]) -> Figure:
    """Draws the ROC curves of several detectors on the same images.

    Args:
        scores: Image scores (N,), by the detector's name.
        labels: Labels (N,), 0 or 1, both present.
    """
    figure = Figure(figsize=(5.2, 5.0 + 0.2 * len(scores)), layout="constrained")
    axes = _axes(figure, "1 - specificity", "sensitivity", "ROC curves")
    for (name, own), style in zip(scores.items(), line_styles(BLUE), strict=False):
        counts = curves.score_counts(labels, own)
        label = f"{_shown(name)}: AUROC {curves.partial_auc(*counts):.3f}"
        axes.plot(*curves.roc(*counts), linewidth=1.8, label=label, **style._asdict())
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="chance")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    figure.legend(loc="outside lower center", frameon=False, fontsize=8)  # names of runs are long
    figure.draw_without_rendering()  # the layout needs two passes; after one, the title may be cut off
    return figure


def precision_recall_figure(scores: Floats, labels: NDArray[np.int64], caption: str) -> Figure:
    """Draws the precision-recall curve. Arguments as in `roc_figure`."""
    precision, recall = curves.precision_recall(*curves.score_counts(labels, scores))
    figure = Figure(figsize=(4.5, 4.2), layout="constrained")
    axes = _axes(figure, "recall (sensitivity)", "precision", "Precision and recall")
    recall, precision = np.append(recall[::-1], 0), np.append(precision[::-1], 1)
    axes.plot(recall, precision, color=BLUE, linewidth=2, drawstyle="steps-post", label=caption)
    axes.axhline(labels.mean(), color=GREY, linestyle=":", linewidth=1, label="chance")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.legend(loc="lower left", frameon=False)
    return figure


def histogram_figure(groups: Mapping[str, Floats], threshold: float) -> Figure:
    """Draws histograms of the scores of each kind with shared bins, and the threshold.

    Positive scores that span more than two decades are binned and drawn on a logarithmic axis.

    Args:
        groups: Scores by kind, with or without "good". None is empty.
        threshold: Threshold, drawn as a line.
    """
    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    axes = _axes(figure, "image score", "share of the kind's images", "Scores")
    every = np.concatenate(list(groups.values()))
    edges = np.histogram_bin_edges(every, bins=30)
    if min(every.min(), np.nan_to_num(threshold, nan=np.inf)) > 0 and every.max() > 100 * every.min():
        edges = np.geomspace(every.min(), every.max(), 31)
        edges[[0, -1]] = every.min(), every.max()  # geomspace may round beyond the extremes
        axes.set_xscale("log")
    styles = line_styles()
    for anomaly_type, scores in groups.items():
        normal = anomaly_type == "good"
        weights = np.full(len(scores), 1 / len(scores))
        label = f"{'normal' if normal else _shown(anomaly_type)} ({len(scores)})"
        bins = edges.tolist()
        if normal:
            axes.hist(scores, bins, weights=weights, histtype="stepfilled", fc=(BLUE, 0.5), ec=BLUE, label=label)
        else:
            style = next(styles)._asdict()
            axes.hist(scores, bins, weights=weights, histtype="step", lw=2, label=label, **style)
    axes.axvline(threshold, color="black", linestyle="--", linewidth=1, label="threshold (held-out normals)")
    axes.legend(frameon=False, fontsize=8)
    return figure


def overlay_figure(cases: Sequence[Case], threshold: float, limits: tuple[float, float]) -> Figure:
    """Draws image, true outline, anomaly map and overlay of some cases, with the same colour scale for all.

    Args:
        cases: At least one case. More than four are shown in two blocks, the first half on the left.
        threshold: Threshold of image scores.
        limits: Median and threshold of the detector's maps of normal images. If they are NaN, maps are scaled to the
            range of the cases, and no overlays are drawn.
    """
    columns = ("image", "truth", "anomaly map", "overlay")
    blocks = 2 if len(cases) > 4 else 1
    height = math.ceil(len(cases) / blocks)
    figure = Figure(figsize=(4.3 * blocks + 0.6, 1.02 * height + 0.3), layout="constrained")
    grid = figure.subplots(height, blocks * len(columns), squeeze=False)
    scaled = not math.isnan(limits[1])
    low, high = np.quantile([case.anomaly_map for case in cases], (0.5, 0.995)).tolist()
    ends = scale_of(limits) if scaled else (low, high)
    for axes, title in zip(grid[0], columns * blocks, strict=True):
        axes.set_title(title, fontsize=9)
    rows = [row for block in np.split(grid, blocks, axis=1) for row in block]
    for axes in (axes for row in rows[len(cases) :] for axes in row):
        axes.set_visible(False)
    for case, row in zip(cases, rows, strict=False):
        pictures = (
            case.image,
            case.image,
            colour_map(case.anomaly_map.astype(np.float32), ends),
            overlay(case, limits) if scaled else case.image,
        )
        for axes, picture in zip(row, pictures, strict=True):
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        if case.mask is None:
            _note(row[1], "no mask")
        elif case.mask.any():
            row[1].contour(case.mask, levels=[0.5], colors="cyan", linewidths=1.2)
        if not scaled:
            _note(row[3], "no threshold")
        row[0].set_ylabel(case.title(threshold), fontsize=7)
    label = "anomaly map" if scaled else "anomaly map, own scale"
    bar = figure.colorbar(ScalarMappable(Normalize(*ends), COLOURS), ax=grid[:, -1], shrink=0.7, label=label)
    if scaled:
        bar.ax.axhline(limits[1], color="cyan", linewidth=1.2)  # value of the overlays' outline
    return figure


def _note(axes: Axes, text: str) -> None:
    note = axes.text(0.5, 0.04, text, transform=axes.transAxes, ha="center", fontsize=8, color="white")
    note.set_bbox({"facecolor": "black", "alpha": 0.5, "linewidth": 0})


def overlay(case: Case, limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Returns the overlay of `ccd predict` at the size of the map: (H, W, 3) in 0..255.

    Args:
        case: The image and its map.
        limits: Median and threshold of the maps of normal images.
    """
    image = Image.fromarray(np.rint(255 * case.image).astype(np.uint8))
    return np.asarray(draw_overlay(image, case.anomaly_map.astype(np.float32), Placement.whole(image.size), limits))


def select_cases(scores: Floats, labels: NDArray[np.int64], count: int = 8) -> list[int]:
    """Selects the images to show: abnormal ones with the highest and lowest scores, and normal ones.

    The normal ones are those with the highest scores, and a typical one.

    Args:
        scores: Image scores (N,).
        labels: Labels (N,), 0 or 1.
        count: Maximum number of images, >= 4: half of them hits, a quarter misses, the rest normal.

    Returns:
        Indices of hits, then misses, false alarms and the median normal image. Fewer if there are not enough images.
    """
    abnormal, normal = (np.flatnonzero(labels == label)[np.argsort(-scores[labels == label])] for label in (1, 0))
    hits, misses, alarms = count // 2, count // 4, count - count // 2 - count // 4 - 1
    chosen = [*abnormal[:hits], *abnormal[-misses:], *normal[:alarms], *normal[len(normal) // 2 : len(normal) // 2 + 1]]
    return list(dict.fromkeys(int(index) for index in chosen))
