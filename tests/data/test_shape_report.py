"""What becomes of shapes is said where there is a choice."""

from __future__ import annotations

import numpy as np
import pytest

from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.shape_report import describe_shapes
from ccd_lightning.data.tiles import Tiles


@pytest.mark.parametrize(
    ("preprocessing", "expected"),
    [
        (Preprocessing(256), "images of 1440 x 1080 px and 1 other sizes are squashed to 256 x 256 px, which stretches"
         " them by 1.33 (--data.fit letterbox or crop keeps their shape)"),
        (Preprocessing((192, 256)), ""),
        (Preprocessing((192, 256), fit="letterbox"), "images of 1440 x 1080 px and 1 other sizes are letterboxed to"
         " 256 x 192 px"),
        (Preprocessing(256, fit="crop", tiles=Tiles(128)), "images of 1440 x 1080 px and 1 other sizes are cropped in"
         " the middle and brought to 256 x 256 px, seen by detectors in tiles of 128 px that overlap by 32 px or more"),
        (Preprocessing((192, 256), tiles=Tiles(128, 0)), "images of 1440 x 1080 px and 1 other sizes are brought to"
         " 256 x 192 px, seen by detectors in tiles of 128 px that overlap by 0 px or more"),
        (Preprocessing((192, 256), "auto"), "images of 1440 x 1080 px and 1 other sizes are cropped to their content"
         " (data.crop auto; 100% of an image in the median), brought to 256 x 192 px"),
    ],
)  # fmt: skip
def test_image_shapes_are_described_in_one_line(preprocessing: Preprocessing, expected: str) -> None:
    sizes = [(1440, 1080)] * 3 + [(720, 576)]
    placements = np.array([preprocessing.place_size(size).numbers() for size in sizes], np.int32)
    assert describe_shapes(placements, preprocessing) == expected


@pytest.mark.parametrize(
    ("preprocessing", "expected"),
    [
        (Preprocessing(224), "images of 159 x 159 px are brought to 224 x 224 px, which enlarges them by 1.41"
         " (--data.size 160 is about their own size)"),
        (Preprocessing((224, 448)), "images of 159 x 159 px are squashed to 448 x 224 px, which stretches them by 2.00"
         " (--data.fit letterbox or crop keeps their shape) and enlarges them by 1.41 (--data.size '[160, 320]' is"
         " about their own size)"),
        (Preprocessing(160), ""),
        (Preprocessing(192), ""),
        (Preprocessing(128), ""),
    ],
)  # fmt: skip
def test_enlarging_images_is_mentioned_with_their_own_size(preprocessing: Preprocessing, expected: str) -> None:
    placements = np.array([preprocessing.place_size((159, 159)).numbers()], np.int32)
    assert describe_shapes(placements, preprocessing) == expected
