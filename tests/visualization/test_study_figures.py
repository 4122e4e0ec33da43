from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ccd_lightning.visualization.palette import MARKERS
from ccd_lightning.visualization.study_figures import Dot, interval_figure

DOTS = [
    Dot("padim", "untrained", 0.6, (0.5, 0.7)),
    Dot("padim", "ccd", 0.8, (0.75, 0.85)),
    Dot("igd", "ccd", 0.7, None),
]


def drawn(axes: Axes, dots: bool) -> list[tuple[list[float], list[float], Any]]:
    """Places and colours of the dots, or of the lines."""
    lines = [line for line in axes.lines if (line.get_marker() in MARKERS) == dots]
    found = [(np.ravel(line.get_xdata()).tolist(), np.ravel(line.get_ydata()).tolist(), line) for line in lines]
    return [(x, y, line.get_color()) for x, y, line in found if x]  # those of the legend are empty


def test_a_dot_and_a_line_for_each_cell() -> None:
    figure = interval_figure("colonoscopy", {"Image AUROC": DOTS, "Pixel AUPRO": DOTS[:1]})
    first, second = figure.axes
    dots = drawn(first, dots=True)
    assert [x for x, _, _ in dots] == [[0.6], [0.8], [0.7]]
    lines = drawn(first, dots=False)
    assert [x for x, _, _ in lines[:2]] == [[0.5, 0.7], [0.75, 0.85]]
    assert [y[0] for _, y, _ in lines[:2]] == [y[0] for _, y, _ in dots[:2]]
    assert len({y[0] for _, y, _ in dots}) == 3
    colours = [colour for _, _, colour in dots]
    assert colours[1] == colours[2] != colours[0]  # an encoder has one colour
    assert [label.get_text() for label in first.get_yticklabels()] == ["padim", "igd"]
    assert len(drawn(second, dots=True)) == 1
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    assert np.asarray(canvas.buffer_rgba()).std() > 5
