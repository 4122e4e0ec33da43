import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ccd_lightning.visualization.study_figures import Dot, interval_figure

DOTS = [
    Dot("padim", "untrained", 0.6, (0.5, 0.7)),
    Dot("padim", "ccd", 0.8, (0.75, 0.85)),
    Dot("igd", "ccd", 0.7, None),
]


def test_a_dot_and_a_line_for_each_cell() -> None:
    figure = interval_figure("colonoscopy", {"Image AUROC": DOTS, "Pixel AUPRO": DOTS[:1]})
    first, second = figure.axes
    lines = [line for line in first.lines if len(line.get_xdata())]
    dots = [line for line in lines if line.get_marker() == "o"]
    assert [float(np.asarray(line.get_xdata())[0]) for line in dots] == [0.6, 0.8, 0.7]
    intervals = [tuple(np.asarray(line.get_xdata())) for line in lines if line.get_marker() != "o"]
    assert (0.5, 0.7) in intervals
    assert (0.75, 0.85) in intervals
    heights = [float(np.asarray(line.get_ydata())[0]) for line in dots]
    assert len(set(heights)) == 3
    assert dots[1].get_color() == dots[2].get_color() != dots[0].get_color()  # an encoder has one colour
    assert [label.get_text() for label in first.get_yticklabels()] == ["padim", "igd"]
    assert len([line for line in second.lines if line.get_marker() == "o" and len(line.get_xdata())]) == 1
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert np.asarray(canvas.buffer_rgba()).std() > 5
