"""Exported files of images that are letterboxed, not square, or cut into tiles."""

import json
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor

from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.tiles import Tiles
from ccd_lightning.export import Scorer, describe, greatest_difference, write_onnx, write_torch
from ccd_lightning.models.igd.settings import Scale, WindowScale
from ccd_lightning.models.patch_features import FeatureConfig
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.modules.igd import IGD
from ccd_lightning.modules.mahalanobis import Mahalanobis
from ccd_lightning.modules.neighbours import Neighbours
from ccd_lightning.modules.padim import PaDiM
from ccd_lightning.modules.statistics import StatisticsDetector

pytestmark = pytest.mark.export
PLACES = {
    "letterbox": Preprocessing(64, fit="letterbox"),
    "not square": Preprocessing((48, 80)),
    "tiles": Preprocessing((80, 112), tiles=Tiles(48, 12, top=0.3)),
    "letterbox and tiles": Preprocessing((80, 112), fit="letterbox", tiles=Tiles(48)),
}
COARSE = FeatureConfig(positions=6, window=3, normalise=True)
DETECTORS: dict[str, Callable[[], StatisticsDetector]] = {
    "padim": lambda: PaDiM(channels=20, top=0.02),
    "neighbours": lambda: Neighbours(features=COARSE),
    "neighbours anywhere": lambda: Neighbours(features=COARSE, window=None, reweight=3, bank_size=300),
    "neighbours, pooled": lambda: Neighbours(features=COARSE, pooled=True),
    "mahalanobis": lambda: Mahalanobis(features=COARSE),
}


def content_of(count: int, place: Preprocessing) -> Tensor:
    """Boxes of wide, tall and square images in turn."""
    shapes = ((300, 200), (200, 300), (100, 100))
    return torch.tensor([place.place_size(shapes[number % 3]).content for number in range(count)])


def given(count: int, detector: OneClassDetector) -> list[Tensor]:
    assert detector.preprocessing is not None
    size = (count, 3, *detector.preprocessing.shape)
    images = torch.randint(256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return [images, content_of(count, detector.preprocessing)][: len(Scorer(detector).inputs)]


def fitted(detector: StatisticsDetector, place: Preprocessing) -> StatisticsDetector:
    detector.eval().preprocessing = place
    with torch.no_grad():
        content = content_of(12, place) if place.fit == "letterbox" else None
        for images, boxes in detector.fit_inputs({"image": torch.rand(12, 3, *place.shape), "content": content}):
            detector.collect(images, boxes)
        detector.fit_statistics()
        batch = given(6, detector)
        detector.threshold = detector(batch[0] / 255, *batch[1:])[0].median()
    detector.requires_grad_(False)
    return detector


@pytest.mark.parametrize(
    ("name", "place", "form"),
    [
        ("padim", "letterbox", "onnx"),
        ("neighbours", "not square", "onnx"),
        ("mahalanobis", "tiles", "onnx"),
        ("neighbours anywhere", "letterbox and tiles", "onnx"),
        ("padim", "not square", "torch"),
        ("padim", "tiles", "torch"),
        ("neighbours, pooled", "letterbox and tiles", "torch"),
        ("neighbours", "letterbox and tiles", "torch"),
    ],
)
def test_a_file_scores_as_the_detector_does(name: str, place: str, form: str, tmp_path: Path) -> None:
    detector = fitted(DETECTORS[name](), PLACES[place])
    scoring = (write_onnx if form == "onnx" else write_torch)(detector, tmp_path / "detector", "uint8")
    for count in (1, 3, 6):
        images, *boxes = given(count, detector)
        with torch.no_grad():
            scores, maps = detector(images / 255, *boxes)
        found = scoring(images, *boxes)
        assert torch.allclose(found["score"], scores, rtol=1e-4)
        assert torch.allclose(found["map"], maps, rtol=0, atol=1e-4 * float(maps.max() - maps.min()))
    assert set(found["decision"].tolist()) == {False, True}
    assert greatest_difference(scoring, detector, *given(6, detector)) < 1e-4


def test_exported_igd_scores_letterboxed_images(tmp_path: Path) -> None:
    weights = (0.6, 0.4)
    local = WindowScale(size=16, width=8, stride=8, ssim_weights=weights)
    detector = IGD(global_scale=Scale(32, 8, ssim_weights=weights), local_scale=local, latent_size=16).eval()
    detector.whole.gaussian.scale.fill_(3.0)
    detector.local.gaussian.scale.fill_(3.0)
    detector.preprocessing = Preprocessing(32, fit="letterbox")
    detector.requires_grad_(False)
    scoring = write_onnx(detector, tmp_path / "detector", "uint8")
    assert greatest_difference(scoring, detector, *given(5, detector)) < 1e-4


def test_the_file_says_what_it_takes(tmp_path: Path) -> None:
    detector = fitted(DETECTORS["mahalanobis"](), PLACES["letterbox and tiles"])
    write_onnx(detector, tmp_path / "detector.onnx", "uint8")
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx", providers=["CPUExecutionProvider"])
    assert [(one.name, one.type, one.shape) for one in session.get_inputs()] == [
        ("images", "tensor(uint8)", ["batch", 3, 80, 112]),
        ("content", "tensor(int64)", ["batch", 4]),
    ]
    metadata = session.get_modelmeta().custom_metadata_map
    assert (metadata["size"], metadata["fit"]) == ("80 x 112", "letterbox")
    assert json.loads(metadata["tiles"]) == {"side": 48, "overlap": 12, "top": 0.0}
    detector.preprocessing = Preprocessing(64)
    assert (describe(detector, "float")["size"], describe(detector, "float")["tiles"]) == ("64", "null")
