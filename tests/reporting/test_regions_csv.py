"""What stands out in a map, region by region."""

from __future__ import annotations

import numpy as np
from skimage import measure

from ccd_lightning.reporting.regions_csv import COLUMNS, find_regions, region_rows


def test_regions_are_those_of_scikit_image() -> None:
    rng = np.random.default_rng(0)
    anomaly_map = rng.uniform(0, 1, (60, 80)).astype(np.float32)
    anomaly_map[10:20, 30:50] += 2
    found = find_regions(anomaly_map, 0.9)
    expected = measure.regionprops(measure.label(anomaly_map > 0.9, connectivity=2), anomaly_map)  # type: ignore[no-untyped-call]
    assert len(found) == len(expected) > 20
    known = {(one.bbox[1], one.bbox[0], one.bbox[3], one.bbox[2]): one for one in expected}
    for region in found:
        other = known[region.box]
        assert region.area == other.area
        assert np.allclose(region.centre, other.centroid[::-1])
        assert np.isclose(region.peak, other.intensity_max)
        assert np.isclose(region.mean, other.intensity_mean)
    assert [one.peak for one in found] == sorted((one.peak for one in found), reverse=True)
    assert found[0].box[0] <= 30 < 50 <= found[0].box[2]


def test_rows_say_which_regions_an_overlay_outlines() -> None:
    anomaly_map = np.zeros((20, 20), np.float32)
    anomaly_map[2:4, 3:8] = 5
    anomaly_map[10:12, 10:12] = 2
    regions = find_regions(anomaly_map, 1.0)
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in region_rows("a.png", regions, 3.0)]
    assert rows[0] == {
        "path": "a.png", "region": "1", "left": "3", "top": "2", "right": "8", "bottom": "4", "x": "5.0", "y": "2.5",
        "area": "10", "peak": "5", "mean": "5", "outlined": "yes",
    }  # fmt: skip
    assert rows[1]["outlined"] == "no"
    assert region_rows("a.png", regions, float("nan"))[0][-1] == ""
    assert find_regions(np.zeros((5, 5), np.float32), 0.0) == []
