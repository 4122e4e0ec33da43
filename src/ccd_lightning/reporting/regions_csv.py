"""regions.csv: connected regions above the pixel threshold in each predicted image."""

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
    """A connected region of a map whose values are above the pixel threshold.

    Attributes:
        box: Left, top, right and bottom in pixels. Right and bottom are exclusive.
        centre: x and y of the centroid in pixels. The centre of the first pixel is 0.
        area: Number of pixels.
        peak: Highest value of the map in the region.
        mean: Mean value of the map in the region.
    """

    box: tuple[int, int, int, int]
    centre: tuple[float, float]
    area: int
    peak: float
    mean: float


def find_regions(anomaly_map: npt.NDArray[np.float32], threshold: float) -> list[Region]:
    """Finds the 8-connected regions of a map (H, W) above a threshold, sorted by falling peak."""
    above = anomaly_map > threshold
    labels, _ = ndimage.label(above, EIGHT_NEIGHBOURS)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[rows, columns] == number
        values = anomaly_map[rows, columns][inside].astype(np.float64)
        y, x = (float(indices.mean()) for indices in np.nonzero(inside))
        box = (columns.start, rows.start, columns.stop, rows.stop)
        centre = (x + columns.start, y + rows.start)
        found.append(Region(box, centre, int(inside.sum()), float(values.max()), float(values.mean())))
    return sorted(found, key=lambda region: -region.peak)


def region_rows(path: str, regions: list[Region], limit: float) -> list[list[str]]:
    """Returns the rows of regions.csv for one image.

    Args:
        path: Path of the image.
        regions: Regions of its map at the size of the original.
        limit: Value above which overlays outline a region. NaN if there is none.
    """
    rows = []
    for number, one in enumerate(regions, start=1):
        outlined = "" if math.isnan(limit) else "yes" if one.peak > limit else "no"
        location = [*map(str, one.box), *(f"{value:.1f}" for value in one.centre)]
        rows.append(
            [path_cell(path), str(number), *location, str(one.area), f"{one.peak:.6g}", f"{one.mean:.6g}", outlined]
        )
    return rows
