"""Windows of grey values: what they are given as, what they show, and percentiles against numpy's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ccd_lightning.cli import main
from ccd_lightning.data import grey_values
from ccd_lightning.data.datasets import Folder
from ccd_lightning.data.depth import eight_bits, parse_window
from ccd_lightning.data.formats.picture import Picture, Window
from ccd_lightning.data.grey_values import ValueCounts, measure_window
from ccd_lightning.data.images import load_images, open_rgb, read_image
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.sources import page_of
from ccd_lightning.errors import UserError
from tests.data.test_stacks import stack, volume
from tests.dicom_files import SHIPPED, dicom

PATH = Path("a.dcm")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (None, None),
        ("null", None),
        ((-40, 80), (-40.0, 80.0)),
        ([1, 2], (1.0, 2.0)),
        ("[-40, 80]", (-40.0, 80.0)),
        ("full", "full"),
        ("stored", "stored"),
        ("stored:BRAIN WINDOW", "stored:BRAIN WINDOW"),
        ("percentile [0.5, 99.5]", "percentile [0.5, 99.5]"),
        ("percentile(1 99)", "percentile [1.0, 99.0]"),
        ("percentile [0, 100]", "percentile [0.0, 100.0]"),
    ],
)
def test_forms_of_a_window(option: Any, expected: Any) -> None:
    assert parse_window(option) == expected
    assert parse_window(expected) == expected
    assert Preprocessing(8, window=option) == Preprocessing(8, window=expected)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ((5, 5), "low < high"),
        ("[5, 4]", "low < high"),
        ("[0, inf]", "two finite numbers"),
        ("percentile [0, 101]", "from 0 to 100"),
        ("percentile [99, 1]", "low < high"),
        ("percentile 1 99", "must be one of"),
        ("[a, b]", "must be one of"),
        ("stored:", "must be one of"),
        ("brain", "must be one of"),
    ],
)
def test_impossible_windows_are_refused(option: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"^data\.window is .*{message}"):
        parse_window(option)


def shown(picture: Picture, option: Any = None) -> np.ndarray[Any, Any]:
    return np.asarray(eight_bits(picture, PATH, parse_window(option)))


def test_a_ct_in_hounsfield_units_shows_what_a_viewer_shows(tmp_path: Path) -> None:
    units = np.arange(-1024, 3072).reshape(64, 64)
    path = dicom(
        tmp_path / "a", (units + 1024).astype(np.uint16), BitsStored=12, RescaleSlope=1, RescaleIntercept=-1024
    )
    expected = np.round(255 * ((units + 40) / 120).clip(0, 1))
    assert np.array_equal(np.asarray(open_rgb(path, (-40.0, 80.0)))[..., 0], expected)
    assert len(np.unique(expected)) == 121  # so that none of the units is lost to 8 bits


def test_a_negative_is_turned_after_the_window() -> None:
    values = np.asarray([[0, 100, 200, 300]], np.uint16)
    picture = Picture(Image.fromarray(values), (4, 1), (0, 1023), inverted=True)
    assert shown(picture, (100, 300)).tolist() == [[255, 255, 128, 0]]  # round(127.5) is even
    eight = Picture(Image.fromarray(values.clip(0, 255).astype(np.uint8)), (4, 1), (0, 255), inverted=True)
    assert shown(eight, (100, 300)).tolist() == [[255, 155, 55, 0]]


def test_what_is_no_measurement_is_black_in_a_negative_too() -> None:
    values = np.asarray([[np.nan, 0, 1, 5]], np.float32)
    for inverted, expected in ((False, [0, 0, 255, 0]), (True, [0, 255, 0, 0])):
        missing = np.asarray([[False, False, False, True]])
        picture = Picture(Image.fromarray(values), (4, 1), inverted=inverted, missing=missing)
        assert shown(picture, (0, 1)).tolist() == [expected]


def test_stored_windows_are_the_first_or_the_one_named() -> None:
    windows = Window(0, 10, "LUNG"), Window(0, 100, "BRAIN", sigmoid=True)
    picture = Picture(Image.fromarray(np.asarray([[5, 50]], np.int32)), (2, 1), (0, 4095), windows)
    assert shown(picture, "stored").tolist() == [[128, 255]]
    assert shown(picture, "stored:brain").tolist() == [[round(255 / (1 + np.exp(4 * 45 / 100))), 128]]
    with pytest.raises(
        UserError, match=r"a\.dcm: the file names no window 'BONE', of 2, .*--data\.window '\[LOW, HIGH\]'"
    ):
        shown(picture, "stored:BONE")
    with pytest.raises(UserError, match=r"a\.dcm: the file names no window to show it by"):
        shown(Picture(picture.image, (2, 1), (0, 4095)), "stored")
    eight = Picture(Image.fromarray(np.asarray([[5, 50]], np.uint8)), (2, 1), (0, 255), windows)
    assert shown(eight, "stored").tolist() == [[128, 255]]
    assert shown(eight, (0, 10)).tolist() == [[5, 50]]


def test_window_full_shows_the_whole_depth() -> None:
    picture = Picture(Image.fromarray(np.asarray([[0, 2048, 4095]], np.uint16)), (3, 1), (0, 4095))
    assert shown(picture, "full").tolist() == [[0, 128, 255]]
    assert shown(picture).tolist() == [[0, 128, 255]]  # as it uses enough of it
    dark = Picture(Image.fromarray(np.asarray([[0, 40]], np.uint16)), (2, 1), (0, 4095))
    assert shown(dark, "full").tolist() == [[0, 2]]
    with pytest.raises(UserError, match=r"few values are used \(0 to 40\).*--data\.window.*full"):
        shown(dark)
    with pytest.raises(
        UserError, match=r"floating point, whose range is not known.*--data\.window, as '\[LOW, HIGH\]'"
    ):
        shown(Picture(Image.fromarray(np.ones((2, 2), np.float32)), (2, 2)), "full")


def test_a_slice_of_air_is_black_and_refuses_no_series() -> None:
    air = Picture(Image.fromarray(np.full((2, 2), -1000, np.int32)), (2, 2), (-1024, 3071))
    assert shown(air, (-40, 80)).max() == 0


def expected_percentiles(values: np.ndarray[Any, Any], shares: tuple[float, ...]) -> list[float]:
    return [float(np.percentile(values, 100 * share, method="inverted_cdf")) for share in shares]


SHARES = (0.0, 0.0001, 0.005, 0.3, 0.5, 0.995, 1.0)


@pytest.mark.parametrize("kind", ["few", "wide", "single", "tiny"])
def test_percentiles_are_exact(kind: str) -> None:
    rng = np.random.default_rng(3)
    values = {
        "few": rng.integers(-1024, 3071, 20_000).astype(np.int32),
        "wide": rng.integers(-(2**31), 2**31 - 1, 20_000).astype(np.int32),
        "single": (rng.normal(0, 1, 20_000) * 10.0 ** rng.integers(-20, 20, 20_000)).astype(np.float32),
        "tiny": np.asarray([-0.0, 1e-40, -3], np.float32),
    }[kind]
    counts = ValueCounts(values.dtype == np.float32)
    for part in np.array_split(values, 3):
        counts.add(part)
    if counts.lower is None:
        counts.prepare_again(SHARES)
        for part in np.array_split(values, 3):
            counts.add_again(part)
        assert kind in ("wide", "single")
    assert [counts.quantile(share) for share in SHARES] == expected_percentiles(values, SHARES)


def save(path: Path, values: np.ndarray[Any, Any]) -> Path:
    Image.fromarray(values).save(path)
    return path


def test_the_window_is_that_of_all_images_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    units = [rng.normal(40, 300, (64, 64)).round().astype(np.int16) for _ in range(5)]
    units[2][:9] = -2000
    tags: dict[str, Any] = {"RescaleSlope": 1, "RescaleIntercept": -24}
    paths = [dicom(tmp_path / f"{index}", values, **tags) for index, values in enumerate(units)]
    plain = np.concatenate([values.ravel() for values in units]) - 24
    wanted = Preprocessing(8, window="percentile [5, 95]")
    assert measure_window(paths, wanted) == (tuple(expected_percentiles(plain, (0.05, 0.95))), 5)

    paths[2] = dicom(tmp_path / "2", units[2], **tags, PixelPaddingValue=-2000)
    kept = np.concatenate([values[values > -2000].ravel() for values in units]) - 24
    assert measure_window(paths, wanted)[0] == tuple(expected_percentiles(kept, (0.05, 0.95)))

    real = rng.normal(0, 1, (64, 64)).astype(np.float32)
    real[0, :3] = np.nan, np.inf, -np.inf
    paths.append(save(tmp_path / "f.tif", real))
    paths.append(save(tmp_path / "eight.png", np.zeros((64, 64), np.uint8)))
    kept = np.concatenate([kept.astype(np.float32), real[np.isfinite(real)]])
    assert measure_window(paths, wanted) == (tuple(expected_percentiles(kept, (0.05, 0.95))), 6)
    for window in ("full", "stored", (0.0, 1.0)):
        assert measure_window(paths, Preprocessing(8, window=window)) == (None, 0)


def test_few_images_are_in_memory_while_values_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [save(tmp_path / f"{index}.png", np.full((4, 4), index, np.uint16)) for index in range(40)]
    waiting = most = 0
    used, add = grey_values.cropped_values, ValueCounts.add

    def read(path: Path, preprocessing: Preprocessing) -> Any:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        return used(path, preprocessing)

    def count(self: ValueCounts, values: Any) -> None:
        nonlocal waiting
        waiting -= 1
        add(self, values)

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(grey_values, "cropped_values", read)
    monkeypatch.setattr(ValueCounts, "add", count)
    assert measure_window(paths, Preprocessing(8))[0] == (0, 39)
    assert most <= 2 * grey_values.AHEAD


def test_one_image_is_the_same_in_all_depths_and_syntaxes(tmp_path: Path) -> None:
    grey = np.random.default_rng(1).integers(0, 256, (64, 48), np.uint8)
    grey[0, :2] = 0, 255
    deep = grey.astype(np.uint16) * 257
    paths = [
        save(tmp_path / "8.png", grey),
        save(tmp_path / "16.png", deep),
        save(tmp_path / "16.tif", deep),
        *(
            dicom(tmp_path / f"{values.dtype}{number}.dcm", values, f"1.2.840.10008.1.2.{number}")
            for values in (grey, deep)
            for number in ("1", "5", "4.90")  # plain, RLE, JPEG 2000
        ),
        *(page_of(volume(tmp_path / f"{values.dtype}.nii.gz", np.stack([values] * 3)), 1) for values in (grey, deep)),
        page_of(stack(tmp_path / "stack.tif", np.stack([deep, deep])), 1),
    ]
    for window in ("full", None):
        images = load_images(paths, Preprocessing((64, 48), window=window)).pixels
        assert np.array_equal(images, np.broadcast_to(grey, (len(paths), 3, 64, 48)))


def test_the_cache_and_the_pixels_follow_the_window(tmp_path: Path) -> None:
    path = SHIPPED / "J2K_pixelrep_mismatch.dcm"
    names = set()
    for window in ("full", "stored", (-40.0, 80.0), "percentile [1, 99]"):
        cache = tmp_path / "cache"
        load_images([path], Preprocessing(32, window=window), cache)
        names |= {one.name for one in cache.glob("*.npy") if "placements" not in one.name}
    assert len(names) == 4
    stored = read_image(path, Preprocessing(32, window="stored"))
    assert np.array_equal(stored, read_image(path, Preprocessing(32, window=(-10.0, 89.0))))


def test_a_window_beyond_all_values_is_refused(tmp_path: Path) -> None:
    for number in range(6):
        path = tmp_path / f"train/good/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, 3000, (16, 16)).astype(np.uint16)
        Image.fromarray(values).save(path)
    data = Folder(str(tmp_path), size=16, window=(5000, 6000), check_leaks=False)
    with pytest.raises(
        UserError, match=r"have a single grey value\. Their grey values may lie beyond data\.window, \[5000"
    ):
        data.setup("fit")
    Folder(str(tmp_path), size=16, window=(0, 3000), check_leaks=False).setup("fit")


def test_check_takes_the_names_that_a_fit_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test_a_window_beyond_all_values_is_refused(tmp_path)
    words = ["--data.window", "[0, 3000]", "--data.size", "16", "--data.fit", "crop", "--data.axis", "1"]
    main(["data", "check", "--root", str(tmp_path), "--output", str(tmp_path / "report"), *words])
    assert "unrecognized" not in capsys.readouterr().err
