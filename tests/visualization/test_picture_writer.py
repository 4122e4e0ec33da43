"""Overlays and maps as files: named as their images are, at one scale, and back from 16 bits."""

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.visualization.picture_writer import FULL, PictureWriter, encode_map

LIMITS = (10.0, 30.0)
HALF = Preprocessing(16, (0, 0, 1, 0.5)).place_size((30, 20))


def writer(folder: Path, **settings: object) -> PictureWriter:
    usual = {
        "base": str(folder),
        "preprocessing": Preprocessing(16, (0, 0, 1, 0.5)),
        "threshold": 30.0,
        "limits": LIMITS,
    }
    return PictureWriter(folder, **(usual | {"maps": "none", "overlays": True} | settings))  # type: ignore[arg-type]


def test_a_png_map_comes_back_within_half_a_grey(tmp_path: Path) -> None:
    anomaly_map = np.random.default_rng(0).uniform(0, 300, (16, 16)).astype(np.float32)
    pictures = writer(tmp_path, maps="png", overlays=False)
    pictures.write(str(tmp_path / "1.png"), 3.0, anomaly_map, HALF)
    scale = json.loads(json.dumps(pictures.description()))
    with Image.open(tmp_path / "maps/1.png.png") as picture:
        greys = np.asarray(picture)
    assert greys.dtype == np.uint16
    assert (anomaly_map > scale["top"]).any()
    cut = greys == FULL
    assert (anomaly_map[cut] >= scale["top"] * (1 - 1 / FULL)).all()
    step = scale["top"] / FULL
    assert np.abs(greys * step - anomaly_map)[~cut].max() <= 0.51 * step
    assert (scale["size"], scale["crop"]) == (16, [0, 0, 1, 0.5])


def test_grey_levels_end_at_zero_and_at_the_limit() -> None:
    greys = np.asarray(encode_map(np.array([[0, 240, 1000, 120]], np.float32), 240))
    assert greys.tolist() == [[0, FULL, FULL, 32768]]


def test_npy_maps_and_names_that_differ_in_a_folder_or_a_suffix(tmp_path: Path) -> None:
    pictures = writer(tmp_path / "out", base=str(tmp_path), maps="npy")
    names = ["a/1.png", "b/1.png", "b/1.jpg", "ä/ü.png"]
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (30, 20), (number, 0, 0)).save(tmp_path / name, quality=100)
        pictures.write(os.path.relpath(tmp_path / name), 3.0, np.full((16, 16), number, np.float32), HALF)
    for number, name in enumerate(names):
        assert np.load(tmp_path / f"out/maps/{name}.npy").max() == number
        with Image.open(tmp_path / f"out/overlays/{name}.png") as overlay:
            assert overlay.size == (30, 20)
            red = overlay.getpixel((3, 17))
        assert red == (number, 0, 0) or name.endswith("jpg")


def test_without_limits_there_are_no_overlays(tmp_path: Path) -> None:
    pictures = writer(tmp_path, limits=(np.nan, np.nan), maps="npy")
    pictures.write("none.png", 3.0, np.zeros((16, 16), np.float32), HALF)
    assert not (tmp_path / "overlays").exists()
    assert json.loads(json.dumps(pictures.description(), allow_nan=False))["normal_threshold"] is None


def test_tiff_maps_are_of_the_original(tmp_path: Path) -> None:
    pictures = writer(tmp_path, base=str(tmp_path), maps="tiff", overlays=False)
    anomaly_map = np.random.default_rng(0).uniform(0, 300, (16, 16)).astype(np.float32)
    pictures.write(str(tmp_path / "a.png"), 3.0, anomaly_map, HALF)
    with Image.open(tmp_path / "maps/a.png.tiff") as picture:
        found = np.asarray(picture)
    assert found.dtype == np.float32
    assert found.shape == (20, 30)
    assert np.array_equal(found, HALF.restore(anomaly_map))
    assert not found[10:].any()
    assert pictures.description()["of"] == "the original image"
