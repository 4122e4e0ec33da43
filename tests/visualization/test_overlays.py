"""Maps as pictures: at the right place, at one scale, and back from 16 bits."""

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import Normalize
from PIL import Image

from ccd_lightning.data.placement import Placement
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.visualization.overlays import (
    COLOURS,
    OUTLINE,
    colour_map,
    draw_overlay,
)

LIMITS = (10.0, 30.0)
WHOLE = {side: Placement.whole((side, side if side < 600 else 400), (20, 20)) for side in (20, 200, 400, 600)}


def changed(image: Image.Image, overlay: Image.Image) -> tuple[int, int, int, int]:
    """The box around the pixels that differ."""
    assert overlay.size == image.size
    rows, columns = np.nonzero((np.asarray(image) != np.asarray(overlay)).any(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_the_map_lies_where_the_crop_was() -> None:
    image = Image.new("RGB", (180, 100), (90, 90, 90))
    preprocessing = Preprocessing(
        20, (0.5, 0.2, 1, 0.8)
    )  # pixels 90 to 180 and 20 to 80: 4.5 x 3 of them are one of the map's
    anomaly_map = np.full((20, 20), LIMITS[0], np.float32)
    anomaly_map[8:12, 12:16] = 60
    overlay = draw_overlay(image, anomaly_map, preprocessing.place(image), LIMITS)
    assert changed(image, overlay) == (90, 20, 180, 80)  # the frame
    inside = (91, 21, 179, 79)
    left, top, right, bottom = changed(image.crop(inside), overlay.crop(inside))
    spot = 90 + 12 * 4.5, 20 + 8 * 3, 90 + 16 * 4.5, 20 + 12 * 3
    blurred = 4.5, 3, 4.5, 3  # by at most one pixel of the map
    assert (np.abs(np.array([left + 91, top + 21, right + 91, bottom + 21]) - spot) <= blurred).all()


def test_an_image_that_is_used_as_a_whole_has_no_frame() -> None:
    image = Image.new("RGB", (60, 40), (90, 90, 90))
    quiet = np.full((20, 20), LIMITS[0], np.float32)
    assert draw_overlay(image, quiet, Preprocessing(20).place(image), LIMITS).tobytes() == image.tobytes()
    assert (
        draw_overlay(image, quiet, Preprocessing(20).place(image), LIMITS, "normal").tobytes() == image.tobytes()
    )  # too small for text
    large = image.resize((600, 400))
    left, top, right, bottom = changed(large, draw_overlay(large, quiet, WHOLE[600], LIMITS, "normal"))
    assert left < right < 200
    assert top < bottom < 40


def test_colours_are_those_of_matplotlib() -> None:
    values = np.linspace(5, 35, 256, dtype=np.float32).reshape(16, 16)
    expected = colormaps[COLOURS](Normalize(*LIMITS)(values))[..., :3]
    assert np.abs(colour_map(values, LIMITS) / 255 - expected).max() < 0.02  # which has one level more
    assert (colour_map(np.full((2, 2), 10, np.float32), (10.0, 10.0)) == colour_map(values, LIMITS)[0, 0]).all()


@pytest.mark.parametrize(("value", "outlined"), [(29.9, False), (30.0, False), (30.5, True)])
def test_a_line_surrounds_what_is_above_the_threshold(value: float, outlined: bool) -> None:
    anomaly_map = np.full((20, 20), LIMITS[0], np.float32)
    anomaly_map[5:10, 5:10] = value
    overlay = np.asarray(draw_overlay(Image.new("RGB", (400, 400)), anomaly_map, WHOLE[400], LIMITS))
    line = (overlay == OUTLINE).all(axis=2)
    assert line.any() == outlined
    assert not line[140:160, 140:160].any()  # a line, not an area


def test_colours_mean_the_same_in_every_image() -> None:
    pictures = []
    for other in (10, 40):
        anomaly_map = np.full((20, 20), other, np.float32)
        anomaly_map[:, :10] = 25
        pictures.append(np.asarray(draw_overlay(Image.new("RGB", (20, 20)), anomaly_map, WHOLE[20], LIMITS)))
    assert np.array_equal(pictures[0][:, :10], pictures[1][:, :10])
    assert not np.array_equal(pictures[0][:, 10:], pictures[1][:, 10:])


def test_the_image_is_seen_below_the_highest_colours() -> None:
    anomaly_map = np.full((20, 20), 1000, np.float32)
    dark, light = (
        np.asarray(draw_overlay(Image.new("RGB", (200, 200), grey), anomaly_map, WHOLE[200], LIMITS)).astype(int)
        for grey in ((50, 50, 50), (150, 150, 150))
    )
    assert (light - dark)[100, 100] == pytest.approx(np.full(3, 50), abs=1)  # half of 100


def test_higher_values_are_brighter() -> None:
    ramp = np.linspace(5, 45, 40, dtype=np.float32)[None].repeat(40, axis=0)
    picture = np.asarray(
        draw_overlay(Image.new("RGB", (40, 40)), ramp, Placement.whole((40, 40)), (10.0, 1e9)).convert("L"),
        float,
    )
    assert picture.max() == 0, "below the threshold by far nothing is seen"
    grey = np.asarray(
        draw_overlay(Image.new("RGB", (40, 40)), ramp, Placement.whole((40, 40)), (10.0, 60.0)).convert("L"),
        float,
    )
    assert (np.diff(grey[0]) >= 0).all()
    assert grey[0, -1] > 20 > grey[0, 0]
