"""AUPRO against two independent implementations, on maps and masks that a seed makes.

The reference numbers come from

- anomalib 2.7.0 (PyPI): `anomalib.metrics.aupro._AUPRO(fpr_limit=0.3)`, updated with the maps and the masks as int,
- the evaluation code that MVTec publishes with MVTec AD (`mvtec_ad_evaluation`: `compute_pro`, then `trapezoid` with
  `x_max=0.3`, divided by 0.3), by the authors of Bergmann et al., IJCV 2021,

with numpy 2.4.6 and torch 2.14.1. Both join pixels that touch at corners, take pixels of equal value together, and
interpolate linearly up to the limit, as we do. (The code published with MVTec 3D-AD differs where values tie: it counts
false positives by their rank, as if no two were equal.)
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ccd_lightning.metrics.pixels import pixel_metrics, record_pixels
from ccd_lightning.metrics.records import ImageRecord

# Of each set of maps and masks: anomalib's AUPRO, and that of MVTec's code.
REFERENCES = {
    "apart ties": (0.3708737, 0.3708737),
    "apart levels": (0.3914090, 0.3914091),
    "apart continuous": (0.4146635, 0.4146635),
    "touching ties": (0.4120884, 0.4120884),
    "touching levels": (0.3769830, 0.3769829),
    "touching continuous": (0.3555873, 0.3555872),
    "lines ties": (0.2839337, 0.2839337),
    "lines levels": (0.3829611, 0.3829611),
    "lines continuous": (0.3418786, 0.3418786),
}
EXACT = 1e-6  # the references keep rates in float32
BINNED = 1e-4  # values without ties share bins one part in 4096 wide, where the curve is taken as straight


def example(name: str) -> tuple[Tensor, Tensor]:
    """Eight maps and masks (8, 24, 24), the first three without a lesion, the others with three or four of any size.

    Args:
        name: How the lesions lie, "apart", "touching" (each begins at the corner where the last one ends) or "lines"
            (diagonals, a pixel thick), and what values the maps have: "ties", "levels" (four) or "continuous".
    """
    places, values = name.split()
    rng = np.random.default_rng(sum(name.encode()))
    masks = np.zeros((8, 24, 24), dtype=bool)
    for mask in masks[3:]:
        row, column = rng.integers(0, 4, 2)
        for _ in range(rng.integers(2, 4)):
            height, width = rng.integers(2, 7, 2)
            if places == "apart":
                row, column = rng.integers(0, 18, 2)
            if places == "lines":
                height = width = max(height, width)
                mask[row : row + height, column : column + width] |= np.eye(height, dtype=bool)[:, : 24 - column]
            else:
                mask[row : row + height, column : column + width] = True
            row, column = row + height, column + width
        mask[20:23, :3] = True  # in the corner, which no other reaches but where they lie apart
    strength = rng.random((8, 1, 1))  # lesions of some images are hardly seen
    maps = 2 * rng.random(masks.shape) + strength * masks
    rounding = {"ties": 16, "levels": 1.3}
    maps = np.round(maps * rounding[values]) if values in rounding else np.exp(maps)
    return torch.from_numpy(maps).float(), torch.from_numpy(masks)


@pytest.mark.parametrize("name", REFERENCES)
def test_aupro_is_that_of_two_other_implementations(name: str) -> None:
    maps, masks = example(name)
    pixels = [record_pixels(str(index), one, mask) for index, (one, mask) in enumerate(zip(maps, masks, strict=True))]
    images = [ImageRecord(str(index), int(mask.any()), "", 0.0) for index, mask in enumerate(masks)]
    found = pixel_metrics(images, pixels, math.nan, ["pixel/aupro"], resamples=0).metrics["pixel/aupro"]
    margin = BINNED if name.endswith("continuous") else EXACT
    assert [found, found] == pytest.approx(list(REFERENCES[name]), abs=margin)
