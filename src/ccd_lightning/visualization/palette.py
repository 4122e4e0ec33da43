"""Colours of lines in figures. They can be told apart by readers with any kind of colour vision, on white paper."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import NamedTuple

BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#718096"
SERIES = (ORANGE, "#480090", "#183c00", "#d80048", "#6c0c48", "#cc00fc")  # of several lines, besides blue and grey
Dash = str | tuple[int, tuple[int, ...]]
DASHES: tuple[Dash, ...] = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")


class Style(NamedTuple):
    """How one of several lines is drawn: lines differ in more than their colour."""

    color: str
    linestyle: Dash


def line_styles(*first: str) -> Iterator[Style]:
    """Yields styles without end. The first twelve are all different.

    Args:
        first: Colours that come before those of SERIES.
    """
    return map(Style, cycle((*first, *SERIES)), cycle(DASHES))
