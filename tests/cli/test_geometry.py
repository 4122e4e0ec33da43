"""A blob in a large frame is where it is, whatever the shape: in maps, overlays, regions.csv and exported detectors."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from ccd_lightning import load
from ccd_lightning.cli import main
from ccd_lightning.data.images import read_placed
from ccd_lightning.export import open_onnx
from tests.runs import CONFIGS

WIDTH, HEIGHT = 1440, 1080
CENTRE = (930, 420)  # x and y of the blob
MARGIN = 240  # px to the left, black
WAYS = {
    "squash": ["--data.size", "96"],
    "letterbox": ["--data.size", "96", "--data.fit", "letterbox"],
    "crop": ["--data.size", "96", "--data.fit", "crop"],
    "auto": ["--data.size", "[96, 128]", "--data.crop", "auto"],
    "tiles": ["--data.size", "[144, 192]", "--data.tiles", "{side: 64}"],
    "all": ["--data.size", "[144, 192]", "--data.crop", "auto", "--data.fit", "letterbox", "--data.tiles", "2"],
}
pytestmark = [pytest.mark.fit, pytest.mark.export]


def frame(seed: int, blob: bool = False) -> Image.Image:
    """A frame of low contrast with a black margin and perhaps a bright blob."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(116, 125, (27, 30, 3)).astype(np.uint8))
    inside = np.asarray(coarse.resize((WIDTH - MARGIN, HEIGHT), Image.Resampling.BICUBIC)).astype(np.float64)
    if blob:
        x, y = np.arange(MARGIN, WIDTH) - CENTRE[0], np.arange(HEIGHT)[:, None] - CENTRE[1]
        inside += 115 * np.exp(-(x**2 + y**2) / (2 * 30**2))[:, :, None]
    whole = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    whole[:, MARGIN:] = inside.round().clip(0, 255)
    return Image.fromarray(whole)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("frames")
    for number in range(12):
        path = place / f"set/train/good/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame(number).save(path, compress_level=1)
    frame(99, blob=True).save(place / "blob.png", compress_level=1)
    return place


def off(x: float, y: float) -> float:
    return max(abs(x - CENTRE[0]), abs(y - CENTRE[1]))


def middle(anomaly_map: NDArray[np.floating]) -> tuple[float, float]:
    """x and y of the middle of what is high: features without training answer to a blob's edge as well."""
    y, x = np.argwhere(anomaly_map > 0.8 * anomaly_map.max()).mean(axis=0)
    return float(x), float(y)


@pytest.mark.parametrize("way", WAYS)
def test_maps_show_a_blob_where_it_is_in_the_image(way: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    words = ["--data.root", "set", *WAYS[way], "--model.encoder.weights", "null", "--data.batch_size", "4"]
    words += ["--model.features.layers", "[1, 2]", "--trainer.logger.init_args.name", way]
    assert main(["fit", "--config", str(CONFIGS / "neighbours_folder.yaml"), *words]) == 0
    run = Path("runs") / way / "latest"
    assert main(["predict", "--ckpt_path", str(run), "--images", "blob.png", "--output", way, "--maps", "tiff"]) == 0
    detector = load(run)
    assert detector.preprocessing is not None
    height, width = detector.preprocessing.shape
    cell = 8 * max(WIDTH / width, HEIGHT / height)  # a unit of the coarser level, in pixels of the frame

    with Image.open(f"{way}/maps/blob.png.tiff") as picture:
        anomaly_map = np.asarray(picture)
    assert anomaly_map.shape == (HEIGHT, WIDTH)
    assert off(*middle(anomaly_map)) <= cell

    with Path(way, "regions.csv").open(newline="") as stream:
        first = next(iter(csv.DictReader(stream)))
    assert off(float(first["x"]), float(first["y"])) <= cell
    assert int(first["left"]) <= CENTRE[0] <= int(first["right"])

    with Image.open(f"{way}/overlays/blob.png.png") as overlay:
        changed = np.abs(np.asarray(overlay).astype(int) - np.asarray(Image.open("blob.png")).astype(int)).sum(axis=2)
    rows, columns = np.nonzero(changed[60:] > 0.6 * changed[60:].max())  # below the label
    assert off(float(np.median(columns)), float(np.median(rows)) + 60) <= 2 * cell

    assert main(["export", "--ckpt_path", str(run)]) == 0
    pixels, placement = read_placed(Path("blob.png"), detector.preprocessing)
    inputs = [torch.tensor(pixels).permute(2, 0, 1)[None]]
    inputs += [torch.tensor([placement.content])] * (detector.preprocessing.fit == "letterbox")
    exported = placement.restore(open_onnx(run / "detector.onnx")(*inputs)["map"][0].numpy())
    assert off(*middle(exported)) <= cell
