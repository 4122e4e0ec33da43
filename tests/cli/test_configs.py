"""Every shipped config is valid and fits together with data; one of each kind of pretraining runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ccd_lightning.checkpoints import read_checkpoint
from ccd_lightning.cli import main
from ccd_lightning.cli.lightning_cli import CLI
from ccd_lightning.cli.next_steps import PRETRAININGS
from ccd_lightning.data.synthetic import synthesize
from ccd_lightning.transforms.strong import Permutation
from tests.runs import CONFIGS, TINY

ALL = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
TRAINERS = sorted(path.name for path in (CONFIGS / "trainer").glob("*.yaml"))
PUBLISHED = [f"ccd_{name}{branch}" for name in ("kvasir", "lag", "liu") for branch in ("", "_local")]


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as stop:
        main(["fit", *words, "--print_config"])
    assert stop.value.code == 0
    content: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return content


@pytest.mark.parametrize("config", ALL)
def test_every_config_is_valid_and_names_its_run_after_itself(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = printed(capsys, "--config", str(CONFIGS / f"{config}.yaml"), "--data.root", "somewhere")
    assert content["trainer"]["logger"]["init_args"]["name"] == config


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
    assert (data["size"], views["patch_size"], views["draw"], views["family"]) == (256, 32, "all", None)
    instances = data["batch_size"] * Permutation.count
    assert instances == data["batch_size"] * views["pairs"] == 32
    assert data["validation"] == 0.05  # as the docs say
    assert (views["size"], views["tile"], views["cutout_size"]) == ((32, 32, 0) if local else (256, 0, 75))
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
    assert training == {"gaussian": 1.0, "interpolation": 0.1, "estimate_every": 10, "fine_tune": False, "mirror": True}
    assert (whole["width"], local["width"]) == (64, 64)
    assert (local["windows_per_image"], content["data"]["init_args"]["validation"]) == (16, 0.05)  # as the docs say
    assert model["latent_size"] == 128
    wanted = {"lr": 1e-4, "betas": (0, 0.9), "weight_decay": 1e-6}
    given = model["optimizer"]["init_args"]
    assert {name: given[name] for name in wanted} | {"betas": tuple(given["betas"])} == wanted
    assert (content["trainer"]["max_epochs"], content["data"]["init_args"]["batch_size"]) == (256, 16)


@pytest.mark.parametrize("name", ["kvasir", "lag", "liu"])
def test_detectors_hold_out_what_their_encoders_do(name: str) -> None:
    data = [
        yaml.safe_load((CONFIGS / f"{config}.yaml").read_text())["data"]["init_args"]
        for config in (f"ccd_{name}", f"ccd_{name}_local", f"padim_{name}", f"igd_{name}")
    ]
    assert {settings["validation"] for settings in data} == {0.05}


@pytest.mark.parametrize("config", [*PUBLISHED, "igd_kvasir", "igd_lag", "igd_liu"])
def test_headers_name_where_differences_are_listed(config: str) -> None:
    document = "docs/pretraining.md" if config.startswith("ccd") else "docs/detectors.md"
    text = (CONFIGS / f"{config}.yaml").read_text()
    assert f"# Published settings, with the exceptions that {document} lists" in text
    assert "published settings" in (CONFIGS.parent / document).read_text().lower()


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("config", ["ccd_kvasir", "padim_folder", "igd_kvasir"])
def test_trainers_go_with_any_config(trainer: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The GPUs they ask for need not be here."""
    words = ["--config", str(CONFIGS / f"{config}.yaml"), "--config", str(CONFIGS / "trainer" / trainer)]
    alone = printed(capsys, *words[:2], "--data.root", "somewhere")["trainer"]
    content = printed(capsys, *words, "--data.root", "somewhere")["trainer"]
    added = yaml.safe_load((CONFIGS / "trainer" / trainer).read_text())["trainer"]
    assert added.get("accelerator", "gpu") == "gpu"
    callbacks = [*alone["callbacks"], *added.pop("callbacks", [])]  # the checkpoints come first
    assert [callback["class_path"] for callback in content.pop("callbacks")] == [one["class_path"] for one in callbacks]
    del alone["callbacks"]
    assert content == alone | added


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("configs") / "images"
    synthesize(root, "colonoscopy", size=64, train=12, test_good=5, test_abnormal=6)
    return root


def small(config: str, images: Path) -> list[str]:
    """A fit by a config, of images of 64 px, and without the weights that it asks for."""
    words = ["fit", "--config", str(CONFIGS / f"{config}.yaml"), "--model.encoder.weights=null"]
    options = {"size": 64, "batch_size": 5, "num_workers": 0, "validation": 0.2}
    words += [f"--data.{key}={value}" for key, value in options.items()]
    if "synthetic" in config:
        words += [f"--data.{key}={value}" for key, value in TINY.items()]
    else:
        words += ["--data.root", str(images)]
    if config.startswith(PRETRAININGS):
        words += ["--data.views.size=16", "--data.views.patch_size=16"]
        words += ["--data.views.tile=16", "--data.views.augment_on=device"] if config.endswith("_local") else []
    if config.endswith("_imagenet"):  # which keep something of the weights
        words += ["--model.encoder.freeze=0", "--model.encoder.batch_norm=calibrate"]
    if config.startswith("igd"):
        words += ["--model.local_encoder.weights=null", "--model.latent_size=16", "--model.local_scale.width=8"]
        words += ["--model.global_scale.size=64", "--model.global_scale.width=8"]
    return words


@pytest.mark.filterwarnings("ignore:.* training images, .* where the paper has.*")
@pytest.mark.parametrize("config", [name for name in ALL if name != "ensemble_folder"])  # which needs members
def test_model_data_and_trainer_fit_together(
    config: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is made and set up as for a fit, which then is left out."""
    made: list[CLI] = []
    monkeypatch.setattr(CLI, "fit", lambda *_, **__: None)
    monkeypatch.setattr(CLI, "after_fit", lambda cli: made.append(cli))
    monkeypatch.setattr("ccd_lightning.cli.training._release", lambda cli: None)
    monkeypatch.chdir(tmp_path)
    assert main(small(config, images)) == 0
    (cli,) = made
    batch = next(iter(cli.datamodule.train_dataloader()))
    assert batch["image"].shape == (5, 3, 64, 64)
    assert ("views" in batch or "draws" in batch) == config.startswith(PRETRAININGS)
    assert type(cli.model).__name__.lower() == config.split("_")[0].replace("simclr", "ccd")
    assert [type(callback).__name__ for callback in cli.trainer.checkpoint_callbacks]


@pytest.mark.fit
def test_simclr_runs_and_a_detector_takes_its_encoder(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*small("simclr_synthetic", images), "--trainer.max_epochs=1"]) == 0
    command = "ccd fit --config neighbours_synthetic --data.size 64"
    command += " --model.encoder.weights runs/simclr_synthetic/version_0"
    assert capsys.readouterr().out.endswith(f"\nNext: {command}\n")
    assert main(["test"]) == 0
    tested = set(json.loads(Path("runs/simclr_synthetic/latest/metrics.json").read_text())["metrics"])
    pretext = {name.removeprefix("pretext/") for name in tested if name.startswith("pretext/")}
    assert pretext == {"contrastive", "projection_std", "feature_std", "alignment", "uniformity"}
    assert "image/auroc" in tested
    assert main([*command.split()[1:], *(f"--data.{key}={value}" for key, value in TINY.items())]) == 0


@pytest.mark.fit
@pytest.mark.filterwarnings("ignore:.* training images, .* where the paper has.*")
@pytest.mark.parametrize("config", ["ccd_kvasir", "ccd_liu_local"])
def test_pretraining_runs(config: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*small(config, images), "--trainer.max_epochs=1"]) == 0
    run = Path("runs") / config / "latest"
    encoder = read_checkpoint(run / "checkpoints/best.ckpt")["state_dict"]
    assert all(torch.isfinite(tensor).all() for tensor in encoder.values())
    assert main(["test"]) == 0
    assert (run / "metrics.json").is_file()
