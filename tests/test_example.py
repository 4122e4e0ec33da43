"""The example draws maps and reads images as the package does, which it cannot import."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from ccd_lightning.data.images import open_rgb
from ccd_lightning.data.preprocessing import Fit, Preprocessing
from ccd_lightning.visualization.overlays import OUTLINE, draw_overlay, palette
from tests.runs import ROOT

LIMITS = (1.5, 7.25)


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("score_onnx", ROOT / "examples/score_onnx.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def metadata(preprocessing: Preprocessing, limits: tuple[float, float] | None = LIMITS) -> dict[str, str]:
    own = {
        "size": preprocessing.size_in_words,
        "fit": preprocessing.fit,
        "crop": json.dumps(preprocessing.crop),
        "window": json.dumps(preprocessing.window),
        "map_limits": json.dumps(limits),
    }
    return own | {"map_colours": palette().hex()}


@pytest.mark.parametrize("crop", [None, (0.1, 0.2, 0.85, 1.0)])
@pytest.mark.parametrize("size", [(24, 24), (150, 90), (1000, 700)])
def test_overlays_are_those_of_predict(
    size: tuple[int, int], crop: tuple[float, float, float, float] | None, example: ModuleType
) -> None:
    rng, preprocessing = np.random.default_rng(0), Preprocessing(24, crop)
    small = rng.uniform(0, 10, (6, 6)).astype(np.float32)
    anomaly_map = np.asarray(Image.fromarray(small).resize((24, 24), Image.Resampling.BICUBIC))
    image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8))
    expected = draw_overlay(image, anomaly_map, preprocessing.place(image), LIMITS)
    found = example.draw_overlay(image, anomaly_map, metadata(preprocessing))
    assert found.tobytes() == expected.tobytes()
    assert (np.asarray(expected) == OUTLINE).all(axis=2).any()


@pytest.mark.parametrize("fit", get_args(Fit))
@pytest.mark.parametrize("size", [(24, 24), (151, 90), (90, 151)])
@pytest.mark.parametrize("working", [24, (24, 40), (40, 24)])
def test_the_example_places_images_as_the_package_does(
    working: int | tuple[int, int], size: tuple[int, int], fit: Fit, example: ModuleType
) -> None:
    preprocessing = Preprocessing(working, (0.1, 0.2, 0.85, 1.0), fit=fit)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8))
    expected = preprocessing.place(image)
    assert example.place(image, metadata(preprocessing)) == (expected.source, expected.target)
    assert example.working_size(metadata(preprocessing)) == preprocessing.shape
    anomaly_map = np.random.default_rng(1).uniform(0, 10, preprocessing.shape).astype(np.float32)
    found = example.draw_overlay(image, anomaly_map, metadata(preprocessing))
    assert found.tobytes() == draw_overlay(image, anomaly_map, expected, LIMITS).tobytes()


def test_content_that_has_to_be_found_is_refused(example: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"data\.crop auto"):
        example.place(Image.new("RGB", (24, 24)), metadata(Preprocessing(24, "auto")))


def test_without_limits_the_example_draws_no_overlays(example: ModuleType) -> None:
    image = Image.new("RGB", (24, 24), "grey")
    assert example.draw_overlay(image, np.ones((24, 24), np.float32), metadata(Preprocessing(24), None)) is image


@pytest.mark.parametrize("limits", [None, (1000.0, 3000.0)])
def test_the_example_reads_16_bit_images_as_the_package_does(
    limits: tuple[float, float] | None, tmp_path: Path, example: ModuleType
) -> None:
    ramp = np.linspace(0, 65535 if limits is None else 5000, 64).astype(np.uint16)[None].repeat(64, axis=0)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    found = np.asarray(example.open_rgb(str(tmp_path / "a.png"), metadata(Preprocessing(24, None, limits))), np.int64)
    assert np.abs(found - np.asarray(open_rgb(tmp_path / "a.png", limits))).max() <= (1 if limits is None else 0)
