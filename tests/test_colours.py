"""Colours that carry a meaning are told apart with any kind of colour vision, and stand out from their background."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from matplotlib import colormaps

from ccd_lightning.reporting.html import TEMPLATE
from ccd_lightning.viewer.server import PAGE
from ccd_lightning.visualization.overlays import COLOURS, FRAME, OUTLINE, SHARE
from ccd_lightning.visualization.palette import BLUE, GREY, ORANGE, SERIES, line_styles
from ccd_lightning.visualization.study_figures import COLOURS as OF_ENCODERS
from tests.colours import VISIONS, WHITE, contrast, distance, lab, linear, variables

APART = 15  # CIE76: about six times what can just be noticed
TEXT, SHAPES = 4.5, 3.0  # WCAG 2.2 AA, 1.4.3 and 1.4.11
LIGHT, DARK = (variables(part) for part in (PAGE / "viewer.css").read_text().split("@media", 2)[:2])
SCALE = colormaps[COLOURS](np.arange(256))[:, :3]
CYAN = tuple(channel / 255 for channel in OUTLINE)


@pytest.mark.parametrize(
    ("colour", "vision", "expected"),
    [
        (WHITE, "normal", (100, 0, 0)),
        ("#ff0000", "normal", (53.24, 80.09, 67.20)),
        ("#0000ff", "normal", (32.30, 79.19, -107.86)),
        *((grey, vision, lab(grey)) for grey in ("#000000", "#777777") for vision in VISIONS),
    ],
)
def test_colours_are_those_of_cielab(colour: str, vision: str, expected: tuple[float, ...]) -> None:
    assert lab(colour, vision) == pytest.approx(np.array(expected), abs=0.02)


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", WHITE) == pytest.approx(21)
    assert contrast(WHITE, "#767676") == pytest.approx(4.54, abs=0.01)
    assert np.allclose(linear(WHITE), 1)


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize(
    "colours",
    [
        pytest.param((BLUE, *SERIES), id="kinds and detectors"),
        pytest.param(OF_ENCODERS, id="encoders"),
        pytest.param((BLUE, ORANGE, GREY), id="ROC curve"),
        pytest.param((LIGHT["normal"], LIGHT["abnormal"], LIGHT["ink"]), id="histogram of the viewer"),
        pytest.param((DARK["normal"], DARK["abnormal"], DARK["ink"]), id="histogram of the viewer, dark"),
        pytest.param((CYAN, tuple(channel / 255 for channel in FRAME)), id="outline and frame"),
    ],
)
def test_colours_are_told_apart(colours: tuple[str, ...], vision: str) -> None:
    found = {(one, other): distance(one, other, vision) for one, other in combinations(colours, 2)}
    closest = min(found, key=found.__getitem__)
    assert found[closest] >= APART, (closest, found[closest])


@pytest.mark.parametrize("colour", dict.fromkeys((BLUE, GREY, *SERIES, *OF_ENCODERS)))
def test_lines_stand_out_from_paper(colour: str) -> None:
    assert contrast(colour, WHITE) >= SHAPES


def test_lines_differ_in_more_than_colour() -> None:
    styles = [style for style, _ in zip(line_styles(), range(12), strict=False)]
    assert len(set(styles)) == 12
    assert all(one.color != other.color and one.linestyle != other.linestyle for one, other in pairwise(styles))


@pytest.mark.parametrize("vision", VISIONS)
def test_higher_values_of_a_map_are_lighter(vision: str) -> None:
    lightness = np.array([lab(tuple(colour), vision)[0] for colour in SCALE])
    assert (np.diff(lightness) > 0).all()


@pytest.mark.parametrize("vision", VISIONS)
def test_the_outline_stands_out_from_the_map_inside_it(vision: str) -> None:
    inside = SCALE[int(255 * SHARE) :]
    assert min(distance(CYAN, tuple(colour), vision) for colour in inside) > 2 * APART


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_controls_of_the_viewer(scheme: dict[str, str]) -> None:
    for ground in ("paper", "raised"):
        for name in ("ink", "soft"):
            assert contrast(scheme[name], scheme[ground]) >= TEXT, (name, ground)
        for name in ("line", "blue", "abnormal", "normal"):  # borders, focus, bars
            assert contrast(scheme[name], scheme[ground]) >= SHAPES, (name, ground)


def test_text_and_focus_of_the_report() -> None:
    found = variables(TEMPLATE.read_text())
    for ground in (WHITE, "#f7fafc"):  # of the page, and of its config
        assert ground == WHITE or ground in TEMPLATE.read_text()
        for name in ("ink", "soft", "blue"):
            assert contrast(found[name], ground) >= TEXT, name
