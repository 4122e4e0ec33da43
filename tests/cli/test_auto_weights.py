"""What `--model.encoder.weights auto` finds is decided once, when a run begins."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ccd_lightning.checkpoints import CONFIG_KEY, read_checkpoint
from ccd_lightning.cli import main
from tests import packages
from tests.runs import CCD, IGD, PADIM, metrics

pytestmark = pytest.mark.fit
AUTO = "--model.encoder.weights=auto"
NAME = "--trainer.logger.init_args.name"


def encoder(run: str) -> dict[str, Any]:
    """What a run's config says of its encoder, and its checkpoint and its record just so."""
    found: dict[str, Any] = yaml.safe_load(Path(run, "config.yaml").read_text())["model"]["init_args"]["encoder"]
    files = list(Path(run, "checkpoints").glob("*.ckpt"))
    assert files
    for file in files:
        kept = yaml.safe_load(read_checkpoint(file)[CONFIG_KEY])
        assert kept["model"]["init_args"]["encoder"] == found
    recorded = json.loads(Path(run, "run.json").read_text())["encoders"]["encoder"]
    assert recorded == {name: found[name] for name in ("name", "digest")} | {"weights": found["weights"] or "random"}
    return found


def test_a_detector_on_imagenet_weights(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        packages.install(workspace / "site", patch)
        assert main([*PADIM, AUTO, f"{NAME}=auto"]) == 0
        assert f"encoder: {packages.NETWORK}, ImageNet weights ({packages.ORIGIN})\n" in capsys.readouterr().out
    run = "runs/auto/version_0"
    found = encoder(run)
    assert (found["name"], found["weights"]) == (packages.NETWORK, "imagenet")
    assert len(found["digest"]) == 16
    # Without the package: nothing is looked for again, and no warning, which would be an error here, is shown.
    assert main(["test", "--ckpt_path", run]) == 0
    assert metrics(run)["run"]["encoder"] == found["digest"]
    assert main(["validate", "--ckpt_path", run]) == 0
    assert main([*PADIM, AUTO, f"{NAME}=auto", "--trainer.max_epochs=2", "--ckpt_path", run]) == 0
    assert encoder(run) == found
    again = ["fit", "--config", f"{run}/config.yaml", "--trainer.logger.init_args.version=again"]
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_: (_ for _ in ()).throw(OSError("offline")))
    assert main(again) == 2
    assert f"The ImageNet weights of {packages.NETWORK} could not be downloaded" in capsys.readouterr().err
    packages.install(workspace / "other", monkeypatch, seed=1)
    assert main(again) == 2
    assert "the encoder's weights are not those that the config names" in capsys.readouterr().err


def test_a_run_that_found_none_stays_random(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match="starts from random weights"):
        assert main([*PADIM, AUTO, f"{NAME}=auto"]) == 0
    assert "encoder: tiny_resnet, random weights\n" in capsys.readouterr().out
    run = "runs/auto/version_0"
    found = encoder(run)
    assert found == {"name": "tiny_resnet", "weights": None, "digest": None}
    packages.install(workspace / "site", monkeypatch)
    assert main([*PADIM, AUTO, f"{NAME}=auto", "--trainer.max_epochs=2", "--ckpt_path", run]) == 0
    assert encoder(run) == found


def test_pretraining_on_imagenet_weights_and_a_detector_on_it(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [AUTO, "--model.encoder.freeze=1", f"{NAME}=ccd_auto"]
    run = "runs/ccd_auto/version_0"
    with monkeypatch.context() as patch:
        packages.install(workspace / "site", patch)
        assert main([*CCD, *words]) == 0
    found = encoder(run)
    assert (found["name"], found["weights"], found["freeze"]) == (packages.NETWORK, "imagenet", 1)
    assert main([*CCD, *words, "--trainer.max_epochs=3", "--ckpt_path", run]) == 0  # with the level still frozen
    assert encoder(run) == found
    capsys.readouterr()
    assert main([*PADIM, "--model.encoder.weights=runs/ccd_auto", f"{NAME}=on_it"]) == 0
    file = f"{run}/checkpoints/best.ckpt"
    assert f"encoder: {packages.NETWORK}, weights of {file}\n" in capsys.readouterr().out
    taken = encoder("runs/on_it/version_0")
    assert (taken["name"], taken["weights"]) == (packages.NETWORK, file)


def test_both_of_igds_encoders(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages.install(workspace / "site", monkeypatch)
    shutil.rmtree("runs/igd_synthetic")
    words = [AUTO, "--model.local_encoder.weights=auto", "--model.encoder.name=null", "--trainer.max_epochs=1"]
    assert main([*IGD, *words]) == 0
    config = yaml.safe_load(Path("runs/igd_synthetic/version_0/config.yaml").read_text())["model"]["init_args"]
    assert config["encoder"] == config["local_encoder"] == encoder("runs/igd_synthetic/version_0")
    assert config["encoder"]["weights"] == "imagenet"
