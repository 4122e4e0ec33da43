"""regions.csv: what stands out in each image that was predicted, region by region."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ccd_lightning.writing import path_cell

REGIONS = "regions.csv"
COLUMNS = ("path", "region", "left", "top", "right", "bottom", "x", "y", "area", "peak", "mean", "outlined")
EIGHT_NEIGHBOURS = np.ones((3, 3))


class Region(NamedTuple):
    """A connected part of a map whose values are above the threshold of pixels.

    Attributes:
        box: Left, top, right and bottom, in pixels; right and bottom are the first ones beyond.
        centre: x and y of the centroid, in pixels; the centre of the first pixel is 0.
        area: How many pixels.
        peak: The map's highest value.
        mean: Its mean.
    """

    box: tuple[int, int, int, int]
    centre: tuple[float, float]
    area: int
    peak: float
    mean: float


def find_regions(anomaly_map: npt.NDArray[np.float32], threshold: float) -> list[Region]:
    """Finds the 8-connected regions of a map (H, W) above a threshold, those with the highest peak first."""
    above = anomaly_map > threshold
    labels, _ = ndimage.label(above, EIGHT_NEIGHBOURS)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[rows, columns] == number
        values = anomaly_map[rows, columns][inside].astype(np.float64)
        y, x = (float(places.mean()) for places in np.nonzero(inside))
        box = (columns.start, rows.start, columns.stop, rows.stop)
        centre = (x + columns.start, y + rows.start)
        found.append(Region(box, centre, int(inside.sum()), float(values.max()), float(values.mean())))
    return sorted(found, key=lambda region: -region.peak)


def region_rows(path: str, regions: list[Region], limit: float) -> list[list[str]]:
    """Rows of regions.csv.

    Args:
        path: The image.
        regions: Of its map at the original's size.
        limit: The value from which an overlay outlines a region; NaN where there is none.
    """
    rows = []
    for number, one in enumerate(regions, start=1):
        outlined = "" if math.isnan(limit) else "yes" if one.peak > limit else "no"
        places = [*map(str, one.box), *(f"{value:.1f}" for value in one.centre)]
        rows.append(
            [path_cell(path), str(number), *places, str(one.area), f"{one.peak:.6g}", f"{one.mean:.6g}", outlined]
        )
    return rows
