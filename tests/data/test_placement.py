"""Where images of other shapes lie at working size, and that maps find back."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from ccd_lightning.data.images import load_images, read_image, read_placed
from ccd_lightning.data.masks import read_mask
from ccd_lightning.data.placement import Placement
from ccd_lightning.data.preprocessing import Fit, Preprocessing
from ccd_lightning.data.tiles import Tiles
from ccd_lightning.errors import UserError

FRAME = (1440, 1080)
WAYS = [
    Preprocessing(256),
    Preprocessing(256, fit="letterbox"),
    Preprocessing(256, fit="crop"),
    Preprocessing((192, 320), fit="letterbox"),
    Preprocessing((320, 192), fit="crop"),
    Preprocessing((256, 192), (0.1, 0.2, 0.9, 1.0)),
    Preprocessing(256, "auto", fit="letterbox"),
    Preprocessing(1080, "auto"),
]


def blob(size: tuple[int, int], centre: tuple[float, float], sigma: float) -> Image.Image:
    x, y = np.arange(size[0]), np.arange(size[1])[:, None]
    bump = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))
    grey = 80 + 170 * bump  # brighter than a dark margin everywhere
    grey[:, :200] = 0  # and there is one to the left
    return Image.fromarray(np.repeat(np.rint(grey).astype(np.uint8)[:, :, None], 3, axis=2))


@pytest.mark.parametrize("preprocessing", WAYS, ids=str)
@pytest.mark.parametrize("centre", [(800.0, 500.0), (600.0, 800.0)])
def test_a_blob_comes_back_to_its_place(
    preprocessing: Preprocessing, centre: tuple[float, float], tmp_path: Path
) -> None:
    path = tmp_path / "frame.png"
    blob(FRAME, centre, 20).save(path)
    pixels, placement = read_placed(path, preprocessing)
    assert pixels.shape == (*preprocessing.shape, 3)
    back = placement.restore(pixels[:, :, 0].astype(np.float32))
    assert back.shape == FRAME[::-1]
    y, x = np.argwhere(back >= back.max() - 1).mean(axis=0)
    cell = max(FRAME[0] / preprocessing.shape[1], FRAME[1] / preprocessing.shape[0])
    assert abs(x - centre[0]) <= cell
    assert abs(y - centre[1]) <= cell


@pytest.mark.parametrize("preprocessing", WAYS, ids=str)
def test_masks_follow_their_images(preprocessing: Preprocessing, tmp_path: Path) -> None:
    path, mask = tmp_path / "frame.png", tmp_path / "mask.png"
    image = blob(FRAME, (800, 500), 40)
    image.save(path)
    Image.fromarray(np.asarray(image)[:, :, 0]).point([255 * (level > 165) for level in range(256)]).save(mask)
    pixels, placement = read_placed(path, preprocessing)
    found = read_mask([mask], mask, preprocessing, placement)
    assert found.shape == preprocessing.shape
    assert found.any()
    assert (found ^ (pixels[:, :, 0] > 165)).sum() <= 0.1 * found.sum() + 4  # but for the edge


def test_the_letterbox_keeps_the_aspect_and_its_margin_is_black(tmp_path: Path) -> None:
    Image.new("RGB", FRAME, (200, 100, 50)).save(tmp_path / "a.png")
    pixels, placement = read_placed(tmp_path / "a.png", Preprocessing(256, fit="letterbox"))
    assert placement.content == (32, 0, 224, 256)  # 256 x 192
    assert (pixels[32:224] == (200, 100, 50)).all()
    assert not pixels[:32].any()
    assert not pixels[224:].any()


def test_a_square_image_is_the_same_in_every_fit(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3)).astype(np.uint8)).save(tmp_path / "a.png")
    ways = [read_image(tmp_path / "a.png", Preprocessing(64, fit=fit)) for fit in get_args(Fit)]
    assert np.array_equal(ways[0], ways[1])
    assert np.array_equal(ways[0], ways[2])


def test_cropping_keeps_the_middle() -> None:
    assert Preprocessing(256, fit="crop").place_size(FRAME).source == (180, 0, 1260, 1080)
    assert Preprocessing((100, 200), fit="crop").place_size((100, 300)).source == (0, 125, 100, 175)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (3000, 2), (17, 5)])
@pytest.mark.parametrize("fit", ["squash", "letterbox", "crop"])
def test_images_of_every_shape_are_placed_within_the_working_image(size: tuple[int, int], fit: str) -> None:
    for preprocessing in (Preprocessing(64, fit=fit), Preprocessing((32, 96), (0.4, 0.4, 0.5, 0.5), fit=fit)):  # type: ignore[arg-type]
        left, top, right, bottom = preprocessing.place_size(size).target
        assert 0 <= left < right <= preprocessing.shape[1]
        assert 0 <= top < bottom <= preprocessing.shape[0]
        image = Image.new("RGB", size)
        assert preprocessing.apply(image, preprocessing.place(image)).size == preprocessing.shape[::-1]


def test_a_large_jpeg_is_decoded_at_a_smaller_scale_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (27, 36, 3)).astype(np.uint8))
    coarse.resize(FRAME, Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=95)
    preprocessing = Preprocessing(128, (0.1, 0.0, 0.9, 1.0))
    fast = read_image(tmp_path / "a.jpg", preprocessing).astype(int)
    sizes = []
    monkeypatch.setattr(Preprocessing, "least", lambda self, size: sizes.append(size))
    whole = read_image(tmp_path / "a.jpg", preprocessing).astype(int)
    assert sizes == [FRAME]
    assert 0 < np.abs(fast - whole).max() <= 3
    assert np.abs(fast - whole).mean() < 0.5


def test_places_are_kept_in_the_cache(tmp_path: Path) -> None:
    paths = []
    for number, size in enumerate([(40, 30), (30, 40), (50, 50)]):
        Image.new("RGB", size, (99, 99, 99)).save(tmp_path / f"{number}.png")
        paths.append(tmp_path / f"{number}.png")
    preprocessing = Preprocessing(32, fit="letterbox")
    for _ in range(2):
        images = load_images(paths, preprocessing, tmp_path / "cache")
        assert [images.placement(index) for index in range(3)] == [
            read_placed(path, preprocessing).placement for path in paths
        ]


def test_other_fits_have_caches_of_their_own() -> None:
    keys = {way.key for way in WAYS}
    assert len(keys) == len(WAYS)


def test_placements_survive_as_numbers() -> None:
    placement = WAYS[3].place_size(FRAME)
    assert Placement.from_numbers(placement.numbers()) == placement


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"size": 64}, Preprocessing(64)),
        ({"size": [64, 96], "crop": "auto", "fit": "letterbox"}, Preprocessing((64, 96), "auto", fit="letterbox")),
        ({"size": 64, "crop": [0, 0, 1, 0.5]}, Preprocessing(64, (0.0, 0.0, 1.0, 0.5))),
        ({"size": 512, "tiles": {"side": 128, "overlap": None, "top": 0.0}}, Preprocessing(512, tiles=Tiles(128))),
        ({"size": 512, "tiles": 2}, Preprocessing(512, tiles=2)),
    ],
)
def test_settings_of_a_config_are_understood(settings: dict[str, object], expected: Preprocessing) -> None:
    assert Preprocessing.from_settings(settings) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "data.size is 0"),
        ({"size": (64, -1)}, "data.size"),
        ({"size": 64, "fit": "stretch"}, "data.fit is 'stretch', but must be one of squash, letterbox, crop"),
        ({"size": 64, "tiles": 0}, "data.tiles is 0"),
        ({"size": 64, "tiles": Tiles(96)}, "tiles of 96 px do not fit into images of 64 px"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Preprocessing(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("tile", [{"side": 0}, {"side": 64, "overlap": 64}, {"side": 64, "top": 1.5}])
def test_impossible_tiles_are_refused(tile: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"data\.tiles"):
        Tiles(**tile)  # type: ignore[arg-type]


def test_a_number_of_tiles_covers_the_image_with_a_quarter_in_common() -> None:
    tiling = Preprocessing(1024, tiles=4).tiling
    assert tiling is not None
    assert (tiling.side, tiling.shared) == (320, 80)
    assert 320 + 3 * (320 - 80) >= 1024


@pytest.mark.parametrize("length", [128, 256, 480, 1000, 4096])
@pytest.mark.parametrize("count", [1, 2, 3, 6, 8, 10])
def test_a_number_of_tiles_is_that_many(length: int, count: int) -> None:
    tiling = Preprocessing((length, length + 100), tiles=count).tiling
    assert tiling is not None
    assert tiling.along(length) == count
    assert tiling.side <= length


def test_a_crop_of_no_pixel_can_be_decoded(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 3), (9, 9, 9)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg", Preprocessing(16, (0.4, 0.4, 0.41, 0.41))).shape == (16, 16, 3)


def test_differences_are_named_as_options() -> None:
    assert Preprocessing(64).differences(Preprocessing(64)) == {}
    other = Preprocessing((64, 96), "auto", (0, 9), "letterbox", 2)
    assert Preprocessing(64).differences(other) == {
        "data.size": (64, (64, 96)),
        "data.crop": (None, "auto"),
        "data.window": (None, (0, 9)),
        "data.fit": ("squash", "letterbox"),
        "data.tiles": (None, 2),
    }
