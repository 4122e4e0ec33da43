"""Pretraining and detectors on networks of each kind that users bring: residual, mobile, convolutional, transformer."""

import json
from pathlib import Path

import pytest
import torch

from ccd_lightning import load
from ccd_lightning.cli import main
from ccd_lightning.encoder_config import EncoderConfig, TrainedEncoderConfig
from ccd_lightning.models.igd.settings import Scale, WindowScale
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.modules.igd import IGD
from ccd_lightning.modules.padim import PaDiM
from tests.modules.test_ccd import make_batch
from tests.modules.test_localisation import assert_in_place, displacements, fitted_padim
from tests.runs import PADIM

WIDE = pytest.param("wide_resnet50_2", marks=pytest.mark.slow)  # ResNet-50 with twice the channels, minutes in all
NAMES = ("resnet18", "resnet50", WIDE, "convnext_tiny", "tf_efficientnet_lite0", "vit_small_patch14_dinov2")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_parameter_is_pretrained(name: str) -> None:
    module = CCD(TrainedEncoderConfig(name=name))
    batch = make_batch() | {"patches": torch.rand(4, 2, 2, 3, 32, 32)}  # no fewer pixels than the largest stride
    module.total(module.losses(batch)).backward()
    gradients = {key: parameter.grad for key, parameter in module.encoder.named_parameters()}
    unused = {"network.mask_token"} if "dinov2" in name else set[str]()
    assert {key for key, gradient in gradients.items() if gradient is None} <= unused
    assert all(bool(gradient.isfinite().all()) for gradient in gradients.values() if gradient is not None)


def test_a_spot_lights_up_where_it_is(name: str) -> None:
    detector = fitted_padim(PaDiM(encoder=EncoderConfig(name=name), channels=60), 96, 96)
    assert_in_place(displacements(detector, 96, 96), cell=detector.encoder.strides[detector.features.layers[0]])


def test_igd_learns_and_scores(name: str) -> None:
    levels, config, images = (0.2, 0.3, 0.5), EncoderConfig(name=name), torch.rand(2, 3, 64, 64)
    whole, local = Scale(64, 8, ssim_weights=levels), WindowScale(32, 8, ssim_weights=levels)
    detector = IGD(config, config, whole, local, latent_size=16)
    for descriptor, encoder, views in (
        (detector.whole, detector.encoder, images),
        (detector.local, detector.local_encoder, images[..., :32, :32]),
    ):
        descriptor.gaussian.scale.fill_(1.0)
        losses = descriptor.losses(encoder, views, torch.full((2,), 0.25), lambda latent: latent.flip(0))
        torch.stack(list(losses.values())).sum().backward()
        assert all(
            bool(parameter.grad.isfinite().all()) for parameter in descriptor.parameters() if parameter.grad is not None
        )
    with torch.no_grad():
        scores, maps = detector.eval()(images)
    assert scores.shape == (2,)
    assert maps.shape == (2, 64, 64)
    assert bool(maps.isfinite().all())


@pytest.mark.fit
@pytest.mark.export
def test_fitted_detectors_are_loaded_and_exported(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(Path(__file__).parents[2] / "configs")
    assert main([*PADIM, "--model.encoder.weights=null", f"--model.encoder.name={name}", "--model.channels=20"]) == 0
    run = tmp_path / "runs/padim_synthetic/version_0"
    assert json.loads((run / "run.json").read_text())["encoders"]["encoder"]["name"] == name
    detector = load(run)
    assert detector.encoder.name == name
    assert detector.encoder.default_levels == detector.hparams["features"]["layers"]
    assert main(["test", "--ckpt_path", str(run)]) == 0
    assert main(["export", "--ckpt_path", str(run)]) == 0  # which compares scores and maps with torch's
