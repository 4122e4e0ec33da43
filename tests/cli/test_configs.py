"""Every shipped config is valid, and those of pretraining run, at smaller sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ccd_lightning.cli import main
from ccd_lightning.modules.handover import read_checkpoint
from tests.conftest import TINY

CONFIGS = Path(__file__).parents[2] / "configs"
TRAINERS = sorted(path.name for path in (CONFIGS / "trainer").glob("*.yaml"))
PUBLISHED = [f"ccd_{name}{branch}" for name in ("kvasir", "lag", "liu") for branch in ("", "_local")]


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as stop:
        main(["fit", *words, "--print_config"])
    assert stop.value.code == 0
    content: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return content


@pytest.mark.parametrize("config", sorted(path.name for path in CONFIGS.glob("*.yaml")))
def test_every_config_is_valid_and_names_its_run_after_itself(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = printed(capsys, "--config", str(CONFIGS / config), "--data.root", "somewhere")
    assert content["trainer"]["logger"]["init_args"]["name"] == Path(config).stem


@pytest.mark.parametrize("config", PUBLISHED)
def test_published_settings(config: str, capsys: pytest.CaptureFixture[str], golden: dict[str, Any]) -> None:
    content = printed(capsys, "--config", str(CONFIGS / f"{config}.yaml"))
    model, data, local = content["model"]["init_args"], content["data"]["init_args"], config.endswith("_local")
    views, optimizer = data["views"]["init_args"], model["optimizer"]
    assert optimizer["class_path"] == "torch.optim.SGD"
    wanted = {"lr": 0.1 if local else golden["schedule"]["lr"], "momentum": 0.9, "weight_decay": 3e-4}
    assert {name: optimizer["init_args"][name] for name in wanted} == wanted
    assert content["trainer"]["max_epochs"] == golden["schedule"]["epochs"] == 2000
    assert (model["temperature"], model["schedule"], model["warmup_steps"]) == (0.2, "epoch", 0)
    assert (data["size"], data["batch_size"], views["patch_size"], views["draw"]) == (256, 32, 32, "all")
    assert (views["size"], views["tile"], views["hole"]) == ((32, 32, 0) if local else (256, 0, 75))
    assert (
        data["crop"] is None if "lag" in config else [round(512 * edge) for edge in data["crop"]] == [45, 45, 475, 475]
    )


@pytest.mark.parametrize("config", ["igd_kvasir", "igd_lag", "igd_liu"])
def test_published_settings_of_igd(config: str, capsys: pytest.CaptureFixture[str], golden: dict[str, Any]) -> None:
    content = printed(capsys, "--config", str(CONFIGS / f"{config}.yaml"))
    model, reference = content["model"]["init_args"], golden["igd"]
    whole, local, training = (model[name] for name in ("global_scale", "local_scale", "training"))
    assert (whole["size"], local["size"], local["stride"], content["data"]["init_args"]["size"]) == (256, 32, 16, 256)
    assert (whole["weight"], whole["gaussian"], local["weight"], local["gaussian"]) == (0.5, 0.9, 0.5, 0.1)
    # With 5 and 4 levels both fit into the last one, which is 16 and 4 px.
    assert (whole["ssim_window"], local["ssim_window"]) == (reference["ms_ssim_win_size"], 3)
    assert list(whole["ssim_weights"]) == reference["ms_ssim_weights"]
    assert list(local["ssim_weights"]) == [0.0516, 0.3295, 0.3463, 0.2726]
    assert whole["structure"] == local["structure"] == 0.85
    assert training == {"gaussian": 1.0, "interpolation": 0.1, "estimate_every": 10, "fine_tune": False}
    assert model["latent_size"] == 128
    wanted = {"lr": 1e-4, "betas": (0, 0.9), "weight_decay": 1e-6}
    given = model["optimizer"]["init_args"]
    assert {name: given[name] for name in wanted} | {"betas": tuple(given["betas"])} == wanted
    assert (content["trainer"]["max_epochs"], content["data"]["init_args"]["batch_size"]) == (256, 16)


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("config", ["ccd_kvasir", "padim_folder", "igd_kvasir"])
def test_trainers_go_with_any_config(trainer: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The GPUs they ask for need not be here."""
    words = ["--config", str(CONFIGS / f"{config}.yaml"), "--config", str(CONFIGS / "trainer" / trainer)]
    alone = printed(capsys, *words[:2], "--data.root", "somewhere")["trainer"]
    content = printed(capsys, *words, "--data.root", "somewhere")["trainer"]
    added = yaml.safe_load((CONFIGS / "trainer" / trainer).read_text())["trainer"]
    assert added["accelerator"] == "gpu"
    assert content == alone | added


@pytest.mark.parametrize("config", [*PUBLISHED, "ccd_synthetic_local", "ccd_synthetic_fundus_local"])
def test_pretraining_runs(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if "synthetic" in config:
        data = [f"--data.{key}={value}" for key, value in TINY.items()]
    else:
        assert main(["data", "synthesize", *(f"--{key}={value}" for key, value in TINY.items())]) == 0
        data = ["--data.root", "data/synthetic_colonoscopy", "--data.size=64", "--model.encoder.weights=null"]
    small = ["--data.batch_size=5", "--data.views.size=16", "--data.views.patch_size=16", "--data.num_workers=0"]
    tile = ["--data.views.tile=16", "--data.views.weak=device"] if config.endswith("_local") else []
    words = ["fit", "--config", str(CONFIGS / f"{config}.yaml"), *data, *small, *tile, "--trainer.max_epochs=1"]
    assert main(words) == 0
    run = Path("runs") / config / "latest"
    encoder = read_checkpoint(run / "checkpoints/best.ckpt")["state_dict"]
    assert all(torch.isfinite(tensor).all() for tensor in encoder.values())
    assert main(["test"]) == 0
    assert (run / "metrics.json").is_file()


@pytest.mark.parametrize("name", ["kvasir", "lag", "liu", "synthetic_fundus", "folder"])
@pytest.mark.parametrize("detector", ["padim", "igd"])
def test_detectors_run(detector: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = [f"--data.{key}={value}" for key, value in TINY.items()]
    if "synthetic" not in name:
        assert main(["data", "synthesize", *(f"--{key}={value}" for key, value in TINY.items())]) == 0
        data = ["--data.root", "data/synthetic_colonoscopy", "--data.size=64", "--data.num_workers=0"]
    words = ["fit", "--config", str(CONFIGS / f"{detector}_{name}.yaml"), *data, "--model.encoder.weights=null"]
    if detector == "igd":
        words += ["--model.local_encoder.weights=null", "--trainer.max_epochs=1", "--model.local_scale.width=8"]
        words += [f"--model.global_scale.{key}={value}" for key, value in (("size", 64), ("width", 8))]
        words += ["--data.batch_size=4"]
    assert main(words) == 0
    assert main(["test"]) == 0
    assert (Path("runs") / f"{detector}_{name}" / "latest" / "metrics.json").is_file()
