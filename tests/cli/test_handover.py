"""From a CCD run to a detector: which encoder was taken, and which images its threshold comes from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ccd_lightning.checkpoints import CONFIG_KEY, DIVISION_KEY, read_checkpoint
from ccd_lightning.cli import main
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.division import Division
from ccd_lightning.data.holdout import HoldOut
from tests.reliability.trials import attempt
from tests.runs import IGD, PADIM, metrics
from tests.tiny import NAME

pytestmark = pytest.mark.fit
ENCODER = Path("runs/ccd_synthetic/version_0/checkpoints/best.ckpt")


def division(file: Path) -> Division:
    found = Division.from_state(read_checkpoint(file)[DIVISION_KEY])
    assert found
    return found


def encoder(run: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(Path(run, "config.yaml").read_text())["model"]["init_args"]["encoder"]
    return config


def test_a_detector_of_another_seed_learns_its_threshold_from_images_that_the_encoder_has_not_seen(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = division(ENCODER)
    words = ["--data.validation=0.4", "--trainer.logger.init_args.name=other"]
    assert main([*PADIM, "--seed_everything=3", *words]) == 0
    assert f"held out: the {len(own.held_out)} images that the encoder's run held out" in capsys.readouterr().out
    file = Path("runs/other/version_0/checkpoints/best.ckpt")
    assert division(file) == own
    seen: list[set[int]] = []

    def watch(self: HoldOut, *rest: Any) -> tuple[set[int], str]:
        held_out, source = usual(self, *rest)
        seen.append(held_out)
        return held_out, source

    usual = HoldOut.draw
    monkeypatch.setattr(HoldOut, "draw", watch)
    for command in ("validate", "fit"):
        resumed = [*PADIM[1:], *words, "--trainer.max_epochs=2", "--seed_everything=3"]
        options = resumed if command == "fit" else ["--seed_everything=7"]
        assert main([command, *options, "--ckpt_path=runs/other"]) == 0
        assert len(seen[-1]) == len(own.held_out)
        assert "held out" not in capsys.readouterr().out


def test_an_older_encoder_does_not_tell_what_it_has_seen(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = read_checkpoint(ENCODER)
    del content[DIVISION_KEY]
    torch.save(content, ENCODER)
    assert main([*PADIM, "--trainer.logger.init_args.name=other"]) == 0
    assert "its checkpoint is from an older version" in capsys.readouterr().out


def test_a_run_names_the_encoder_that_it_took(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, name = "runs/padim_synthetic/version_0", str(ENCODER)
    digest = metrics(run)["run"]["encoder"]
    assert encoder(run) == {"name": NAME, "weights": name, "digest": digest}
    kept = yaml.safe_load(read_checkpoint(Path(run, "checkpoints/best.ckpt"))[CONFIG_KEY])
    assert kept["model"]["init_args"]["encoder"] == {"name": NAME, "weights": name, "digest": digest}
    record = json.loads(Path(run, "run.json").read_text())
    assert record["encoder"] == name
    assert record["encoders"] == {"encoder": {"name": NAME, "weights": name, "digest": digest}}
    newer = Path("runs/ccd_synthetic/version_1")
    shutil.copytree("runs/ccd_synthetic/version_0", newer)
    content = read_checkpoint(ENCODER)
    content["state_dict"] = {key: value * 2 for key, value in content["state_dict"].items()}
    torch.save(content, newer / "checkpoints/best.ckpt")
    record = json.loads((newer / "run.json").read_text()) | {"finished": "2999-01-01T00:00:00+00:00"}
    (newer / "run.json").write_text(json.dumps(record))
    again = ["fit", "--config", f"{run}/config.yaml", "--trainer.logger.init_args.version=again"]
    assert main(again) == 0
    assert encoder("runs/padim_synthetic/again") == {"name": NAME, "weights": name, "digest": digest}
    assert (
        main([*again[:3], "--trainer.logger.init_args.version=newer", "--model.encoder.weights=runs/ccd_synthetic"])
        == 0
    )
    assert encoder("runs/padim_synthetic/newer")["weights"] == str(newer / "checkpoints/best.ckpt")
    assert encoder("runs/padim_synthetic/newer")["digest"] != digest
    shutil.copy(newer / "checkpoints/best.ckpt", ENCODER)
    capsys.readouterr()
    assert main([*again[:3], "--trainer.logger.init_args.version=changed"]) == 2
    message = capsys.readouterr().err
    assert f"{ENCODER}: the encoder's weights are not those that the config names" in message
    assert "--model.encoder.digest null" in message


def test_latest_is_written_as_the_run_that_it_was(workspace: Path) -> None:
    words = ["--model.encoder.weights=runs/ccd_synthetic/latest", "--trainer.logger.init_args.name=other"]
    assert main([*PADIM, *words]) == 0
    assert encoder("runs/other/version_0")["weights"] == str(ENCODER)


def test_a_resumed_detector_needs_no_encoder(workspace: Path) -> None:
    run = "runs/igd_synthetic/version_0"
    before = encoder(run)
    for branch in ("", "_local"):
        shutil.rmtree(f"runs/ccd_synthetic{branch}")
    assert main([*IGD, "--trainer.max_epochs=4", "--ckpt_path", run]) == 0
    assert encoder(run) == before
    record = json.loads(Path(run, "run.json").read_text())
    assert record["epochs"] == 4
    assert record["encoder"].startswith(f"global_scale {ENCODER}, local_scale runs/ccd_synthetic_local/version_0/")
    assert record["encoders"]["encoder"] == before


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_a_checkpoint_of_another_model_is_refused(
    command: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = attempt([command, "--ckpt_path=runs/padim_synthetic", "--model=Neighbours"], capsys)
    assert "the checkpoint is of ccd_lightning.modules.padim.PaDiM, but model is ccd_lightning.modules.neigh" in message
    assert "Give the --model or the config of its own run, or another --ckpt_path." in message


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model.shrinkage=true", "model.shrinkage is True, but was False in the fit, and PaDiM cannot change it"),
        ("--model.features.window=5", "model.features.window is 5, but was 1 in the fit"),
    ],
)
def test_options_of_the_fit_are_refused_in_a_test(
    option: str, message: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = metrics("runs/padim_synthetic/latest")
    told = attempt(["test", "--ckpt_path=runs/padim_synthetic", option], capsys)
    assert message in told
    assert metrics("runs/padim_synthetic/latest") == before


def test_another_quantile_in_a_test(workspace: Path) -> None:
    before = metrics("runs/padim_synthetic/latest")["run"]
    held_out = read_checkpoint(Path("runs/padim_synthetic/latest/checkpoints/best.ckpt"))["state_dict"]["normal_scores"]
    assert main(["test", "--ckpt_path=runs/padim_synthetic", "--model.quantile=0.25"]) == 0
    after = metrics("runs/padim_synthetic/latest")["run"]
    assert after["threshold"] == float(torch.quantile(held_out, 0.25)) < before["threshold"]
    assert after["pixel_threshold"] == before["pixel_threshold"]
    assert after["threshold_rule"]["quantile"] == 0.25
    assert before["threshold_rule"]["false_positive_rate"] == pytest.approx([0.0126, 0.9874], abs=1e-3)
    assert after["changed"] == {"model.quantile": 0.25}
    assert "comes from only 2 held-out images" in Path("runs/padim_synthetic/latest/report.html").read_text()
    message = json.loads(Path("output.json").read_text())["fit padim_synthetic"]
    assert "\nThe threshold comes from only 2 held-out images: it will call between 1.3% and" in message


def test_another_run_that_finishes_meanwhile_is_not_taken(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = AnomalyDataModule.setup

    def setup(self: AnomalyDataModule, stage: str) -> None:
        """A second run of pretraining finishes while the images are read."""
        if not Path("runs/ccd_synthetic/version_1").exists():
            shutil.copytree("runs/ccd_synthetic/version_0", "runs/ccd_synthetic/version_1")
            file = Path("runs/ccd_synthetic/version_1/checkpoints/best.ckpt")
            content = read_checkpoint(file)
            content["state_dict"]["encoder.network.conv1.0.weight"] += 1
            torch.save(content, file)
            Path("runs/ccd_synthetic/version_1/run.json").touch()
        usual(self, stage)

    monkeypatch.setattr(AnomalyDataModule, "setup", setup)
    assert main([*PADIM, "--trainer.logger.init_args.name=meanwhile"]) == 0
    taken = read_checkpoint(Path("runs/meanwhile/version_0/checkpoints/best.ckpt"))["state_dict"]
    name = "encoder.network.conv1.0.weight"
    assert torch.equal(taken[name], read_checkpoint(ENCODER)["state_dict"][name])
    assert encoder("runs/meanwhile/version_0")["weights"] == str(ENCODER)


def test_images_under_other_names_are_not_taken_for_new_ones(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "renamed"
    shutil.copytree("data/synthetic_colonoscopy", root)
    (root / "train/good").rename(root / "train/normal")
    words = ["--data.root", str(root), "--data.size=64", "--model.encoder.weights=runs/ccd_synthetic"]
    assert main(["fit", "--config", "configs/padim_folder.yaml", *words]) == 0
    assert "the encoder's run names none of them: if it saw them under other names" in capsys.readouterr().out


def test_a_resumed_run_keeps_its_network(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = [*PADIM, "--model.encoder.weights=null", "--trainer.logger.init_args.name=other"]
    assert main([*fit, "--model.encoder.name=test_resnet"]) == 0
    run = "runs/other/version_0"
    before = Path(run, "config.yaml").read_text()
    assert main([*fit, "--model.encoder.name=test_vit", "--ckpt_path", run]) == 2
    assert "its encoder is test_resnet, but model.encoder.name is test_vit" in capsys.readouterr().err
    assert Path(run, "config.yaml").read_text() == before
    assert main(["test", "--ckpt_path", run, "--model.encoder.name=test_vit"]) == 2
    assert main(["test", "--ckpt_path", run]) == 0
    assert main([*fit, "--ckpt_path", run]) == 0  # which leaves the name out
    assert encoder(run)["name"] == "test_resnet"
