"""Figures of a study: metrics with their intervals, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from ccd_lightning.visualization.palette import BLUE, GREY, MARKERS, SERIES

COLOURS = (GREY, BLUE, *SERIES)


class Dot(NamedTuple):
    """A mean with its interval, in the colour of its encoder and the row of its detector.

    Attributes:
        detector: Group of lines.
        encoder: Line in the group.
        mean: Position of the dot.
        interval: Ends of the line through the dot. None for no line.
    """

    detector: str
    encoder: str
    mean: float
    interval: tuple[float, float] | None


def interval_figure(title: str, panels: Mapping[str, Sequence[Dot]]) -> Figure:
    """Draws means with their 95% intervals, one panel per metric, with lines grouped by detector.

    Args:
        title: Title of the figure, such as the data set's name.
        panels: Dots by the metric's name. At least one panel, each with at least one dot.
    """
    every = [dot for dots in panels.values() for dot in dots]
    detectors = list(dict.fromkeys(dot.detector for dot in every))
    encoders = list(dict.fromkeys(dot.encoder for dot in every))
    group = len(encoders) + 1.2  # lines of a detector, and the space below
    height = 1.4 + 0.2 * group * len(detectors)
    figure = Figure(figsize=(1.5 + 3.4 * len(panels), height), layout="constrained")
    figure.suptitle(title)
    lines = {
        (detector, encoder): row * group + line
        for row, detector in enumerate(detectors)
        for line, encoder in enumerate(encoders)
    }
    for index, (metric, dots) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), index + 1)
        for dot in dots:
            (colour, marker), line = _style(encoders.index(dot.encoder)), lines[dot.detector, dot.encoder]
            if dot.interval:
                axes.plot(dot.interval, (line, line), color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(dot.mean, line, marker, color=colour, markersize=6)
        if metric.endswith("AUROC") and axes.get_xlim()[0] < 0.5:
            axes.axvline(0.5, color=GREY, linestyle=":", linewidth=1)  # chance
        axes.set(xlabel=metric, ylim=(len(detectors) * group - 0.7, -0.8))
        centres = [row * group + (len(encoders) - 1) / 2 for row in range(len(detectors))]
        axes.set_yticks(centres, detectors if index == 0 else [""] * len(detectors))
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.25)
    axes = figure.axes[0]
    handles = [
        axes.plot([], [], f"{_style(index)[1]}-", color=_style(index)[0], markersize=6, label=encoder)[0]
        for index, encoder in enumerate(encoders)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(encoders), 5), frameon=False, fontsize=8)
    return figure


def _style(index: int) -> tuple[str, str]:
    """Returns colour and marker of an encoder."""
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
