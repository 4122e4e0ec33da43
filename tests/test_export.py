"""Exported files score as the detectors they were made of."""

from math import isnan
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from ccd_lightning import __version__
from ccd_lightning.checkpoints import fingerprint
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.errors import UserError
from ccd_lightning.export import METADATA, Scorer, describe, greatest_difference, write_onnx, write_torch
from ccd_lightning.models.igd.settings import Scale, WindowScale
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.modules.igd import IGD
from ccd_lightning.modules.padim import PaDiM
from ccd_lightning.visualization.overlays import palette

SIZE = 32
pytestmark = pytest.mark.export


def make(name: str) -> OneClassDetector:
    """A small detector, whose threshold is the middle one of the test images' scores."""
    torch.manual_seed(0)
    detector: OneClassDetector
    if name == "padim":
        detector = PaDiM(channels=20).eval()
        with torch.no_grad():
            detector.gaussian.update(detector.embed(torch.rand(20, 3, SIZE, SIZE)))
        detector.gaussian.fit()
    else:
        weights = (0.6, 0.4)
        local = WindowScale(size=16, width=8, stride=8, ssim_weights=weights)
        detector = IGD(global_scale=Scale(SIZE, 8, ssim_weights=weights), local_scale=local, latent_size=16).eval()
        detector.whole.gaussian.scale.fill_(3.0)
        detector.local.gaussian.scale.fill_(3.0)
    detector.preprocessing = Preprocessing(SIZE, (0.1, 0, 1, 0.5), (0.0, 4000.0))
    with torch.no_grad():
        detector.normal_scores = detector(pixels() / 255)[0].sort().values
    detector.threshold = detector.normal_scores[2]
    detector.map_limits = torch.tensor([0.5, 2.0])
    return detector.requires_grad_(False)


def pixels() -> Tensor:
    return torch.randint(256, (5, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "form", "kind"),
    [
        ("padim", "onnx", "float"),
        ("padim", "torch", "uint8"),
        ("padim", "torch", "float"),
        ("igd", "onnx", "uint8"),
        ("igd", "torch", "float"),
    ],
)
def test_a_file_scores_batches_of_any_size_as_the_detector_does(
    name: str, form: str, kind: str, tmp_path: Path
) -> None:
    detector, images = make(name), pixels()
    scoring = (write_onnx if form == "onnx" else write_torch)(detector, tmp_path / "detector", kind)
    assert [path.name for path in tmp_path.iterdir()] == ["detector"]
    for count in (1, 2, 3, 5):
        given = images[:count] if kind == "uint8" else images[:count] / 255
        found = scoring(given)
        scores, maps = detector(images[:count] / 255)
        assert list(found) == ["score", "decision", "map"]
        assert found["decision"].dtype == torch.bool
        assert torch.allclose(found["score"], scores, rtol=1e-4)
        assert torch.allclose(found["map"], maps, rtol=0, atol=1e-4 * float(maps.max() - maps.min()))
    assert found["score"].std() > 1e-3 * found["score"].mean()
    assert set(found["decision"].tolist()) == {False, True}
    assert greatest_difference(scoring, detector, given) < 1e-4


def test_onnx_says_what_it_takes_and_what_it_was_made_of(tmp_path: Path) -> None:
    detector = make("padim")
    scoring = write_onnx(detector, tmp_path / "detector.onnx", "uint8")
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx", providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {
        "version": __version__,
        "model": "PaDiM",
        "encoder": fingerprint(detector.encoder),
        "input": "uint8, 0 to 255",
        "size": "32",
        "fit": "squash",
        "tiles": "null",
        "crop": "[0.1, 0, 1, 0.5]",
        "window": "[0.0, 4000.0]",
        "map_limits": "[0.5, 2.0]",
        "map_colours": palette().hex(),
        "resize": "crop, then bilinear with antialiasing, as Pillow's Image.resize",
        "threshold": repr(float(detector.threshold)),
        "threshold_rule": "the 0.95 quantile of the scores of 5 held-out images",
    }
    (images,), outputs = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", 3, SIZE, SIZE])
    assert [(output.name, output.type, output.shape) for output in outputs] == [
        ("score", "tensor(float)", ["batch"]),
        ("decision", "tensor(bool)", ["batch"]),
        ("map", "tensor(float)", ["batch", SIZE, SIZE]),
    ]
    model = onnx.load(tmp_path / "detector.onnx")
    onnx.checker.check_model(model)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert greatest_difference(scoring, detector, pixels()) < 1e-4
    assert str(Path(__file__).parents[1]).encode() not in (tmp_path / "detector.onnx").read_bytes()


def test_torch_carries_the_same_description(tmp_path: Path) -> None:
    detector = make("padim")
    write_torch(detector, tmp_path / "detector.pt2", "float")
    extra = {METADATA: ""}
    torch.export.load(tmp_path / "detector.pt2", extra_files=extra)
    assert '"input": "float32, 0 to 1"' in extra[METADATA]
    assert f'"threshold": "{float(detector.threshold)!r}"' in extra[METADATA]


def test_exports_without_a_threshold_make_no_decisions(tmp_path: Path) -> None:
    detector = make("padim")
    detector.threshold = torch.tensor(float("nan"))
    scoring = write_torch(detector, tmp_path / "detector.pt2", "uint8")
    assert list(scoring(pixels())) == ["score", "map"]
    assert greatest_difference(scoring, detector, pixels()) < 1e-4
    description = describe(detector, "uint8")
    assert description["threshold"] == ""
    assert description["threshold_rule"] == "none: the run was fitted without validation"


def test_a_difference_from_torch_is_reported_for_every_output() -> None:
    detector = make("padim")
    scorer, images = Scorer(detector), pixels()
    span = float(detector(images / 255)[1].max() - detector(images / 255)[1].min())
    assert greatest_difference(scorer, detector, images) == 0

    def wrong(name: str, only_in: int, change: float) -> float:
        def score(given: Tensor) -> dict[str, Tensor]:
            found: dict[str, Tensor] = scorer(given)
            if len(given) == only_in:
                found[name] = found[name].clone()
                found[name][-1] = found[name][-1] + change
            return found

        return greatest_difference(score, detector, images)

    assert wrong("map", 5, 0.3 * span) == pytest.approx(0.3, rel=1e-4)
    assert wrong("map", 1, -0.3 * span) > 0.3  # of a smaller range, that of one image
    assert isnan(wrong("map", 1, float("nan")))
    scores = detector(images / 255)[0]
    detector.threshold = scores.max() + span  # far from all
    assert wrong("score", 5, 0.2 * span) == pytest.approx(0.2, rel=1e-4)
    assert wrong("decision", 1, 1) == float("inf")  # none is abnormal


def test_a_detector_of_no_known_size_is_refused(tmp_path: Path) -> None:
    detector = make("padim")
    detector.preprocessing = None
    with pytest.raises(UserError, match="the image size is unknown"):
        write_onnx(detector, tmp_path / "detector.onnx", "uint8")
