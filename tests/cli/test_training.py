"""The whole path through the command line, in-process, on images of 64 px."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # type: ignore[import-untyped]

from ccd_lightning import load, runs
from ccd_lightning.checkpoints import read_checkpoint
from ccd_lightning.cli import main
from ccd_lightning.data.images import read_image
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.errors import UserError
from ccd_lightning.reporting.html import FIGURES
from tests.runs import CCD, CONFIGS, DATA, PADIM, VIEWS, metrics


def test_run_folders_have_their_files(workspace: Path) -> None:
    for name in ("ccd_synthetic", "padim_synthetic"):
        run = workspace / "runs" / name / "latest"
        assert run.resolve().name == "version_0"
        for file in (
            "config.yaml",
            "run.json",
            "metrics.json",
            "predictions.csv",
            "report.html",
            "model_card.md",
            "checkpoints/best.ckpt",
        ):
            assert (run / file).is_file(), file
        assert list(run.glob("events.out.tfevents.*"))
        assert (run / "pixels.npz").is_file() == (name == "padim_synthetic")  # of maps
    figures = {path.name for path in (workspace / "runs/padim_synthetic/latest/figures").iterdir()}
    assert figures == {"roc.png", "precision_recall.png", "histogram.png", "overlays.png"}
    assert figures == set(FIGURES)  # of which a later test removes what it does not draw


def test_report_has_the_figures_and_the_config(workspace: Path) -> None:
    for name, figures in (("ccd_synthetic", 3), ("padim_synthetic", 4)):
        text = (workspace / f"runs/{name}/latest/report.html").read_text(encoding="utf-8")
        assert text.count("<img ") == figures
        assert f"name: {name}" in text  # of the logger, in the config
        assert f"{metrics(f'runs/{name}/latest')['metrics']['image/auroc']:.3f}" in text


def test_tensorboard_sorts_runs_by_their_results(workspace: Path) -> None:
    events = EventAccumulator(str(workspace / "runs/padim_synthetic/latest"))
    events.Reload()
    start = HParamsPluginData.FromString(events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    shown = start.session_start_info.hparams
    assert (shown["model"].string_value, shown["batch_size"].number_value) == ("PaDiM", 6)
    assert Path(shown["data"].string_value).name == "synthetic_colonoscopy"
    assert len(events.Scalars("test/image/auroc")) == 1


def test_encoder_of_the_detector_is_the_runs(workspace: Path) -> None:
    ccd, padim = (
        read_checkpoint(workspace / f"runs/{name}/latest/checkpoints/best.ckpt")["state_dict"]
        for name in ("ccd_synthetic", "padim_synthetic")
    )
    names = {name for name in ccd if name.startswith("encoder.")}
    assert names == {name for name in padim if name.startswith("encoder.")}
    assert len(names) > 50
    assert all(torch.equal(ccd[name], padim[name]) for name in names)


def test_metrics_of_both_kinds_of_run(workspace: Path) -> None:
    padim, ccd = metrics("runs/padim_synthetic/latest"), metrics("runs/ccd_synthetic/latest")
    assert {"image/auroc", "image/sensitivity", "image/specificity", "pixel/auroc"} <= set(padim["metrics"])
    assert padim["run"]["encoder"] == ccd["run"]["encoder"]  # by its tensors, whatever the path
    assert {"pretext/augmentation_accuracy", "pretext/position_accuracy", "image/auroc"} <= set(ccd["metrics"])
    assert set(ccd["undefined"]) >= {"pixel/auroc"}
    assert padim["metrics"]["image/auroc"] != ccd["metrics"]["image/auroc"]


def test_checkpoint_alone_gives_the_same_numbers(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = metrics("runs/padim_synthetic/latest")
    shutil.copy(workspace / "runs/padim_synthetic/latest/checkpoints/best.ckpt", tmp_path / "moved.ckpt")
    shutil.copytree(workspace / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)  # neither runs/ nor configs/ is here
    assert main(["test", "--ckpt_path", "moved.ckpt"]) == 0
    assert metrics(tmp_path) == before


def test_same_seed_same_metrics_other_seed_other_metrics(workspace: Path) -> None:
    results = [metrics("runs/padim_synthetic/latest")]
    for seed in (0, 1):
        words = ["--seed_everything", str(seed), "--trainer.logger.init_args.name"]
        assert main([*CCD, *words, f"ccd_{seed}"]) == 0
        assert main([*PADIM, *words, f"padim_{seed}", "--model.encoder.weights", f"runs/ccd_{seed}"]) == 0
        assert main(["test"]) == 0
        results.append(metrics(f"runs/padim_{seed}/latest"))
    assert results[0] == results[1]
    assert results[0]["metrics"] != results[2]["metrics"]


def test_untrained_encoder_and_test_of_a_named_run(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model.encoder.weights", "null", "--trainer.logger.init_args.name", "padim_untrained"]
    assert main([*PADIM, *words]) == 0
    assert main(["test", "--ckpt_path", "runs/padim_synthetic"]) == 0
    assert "test: runs/padim_synthetic/version_0/checkpoints/best.ckpt" in capsys.readouterr().out
    assert main(["test", "--ckpt_path=runs/padim_untrained/version_0"]) == 0
    trained, untrained = (metrics(f"runs/padim_{name}/latest") for name in ("synthetic", "untrained"))
    assert trained["run"]["encoder"] != untrained["run"]["encoder"]
    assert main(["compare", "runs/padim_synthetic", "runs/padim_untrained"]) == 0
    table = capsys.readouterr().out.split("minus runs/padim_synthetic")[1]
    for name in ("pixel/auroc", "pixel/aupro", "pixel/dice"):
        assert f" {untrained['metrics'][name] - trained['metrics'][name]:+.3f} [" in table
    assert "not compared" not in table
    records = [
        json.loads(Path(f"runs/padim_{name}/latest/run.json").read_text()) for name in ("synthetic", "untrained")
    ]
    sources = [record["encoder"] for record in records]
    assert sources == ["runs/ccd_synthetic/version_0/checkpoints/best.ckpt", "random"]


def test_predict_reads_no_label(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("runs/padim_synthetic/latest")
    before = {path.name for path in run.iterdir()}
    assert main(["predict", "--ckpt_path", str(run)]) == 0
    assert {path.name for path in run.iterdir()} - before == {"unlabelled_predictions.csv"}  # no event file
    files = [run / name for name in ("unlabelled_predictions.csv", "predictions.csv")]
    predicted, tested = (list(csv.DictReader(file.read_text().splitlines())) for file in files)
    assert predicted == [{name: row[name] for name in ("path", "score", "percentile", "decision")} for row in tested]
    assert "of 11 images are called abnormal" in capsys.readouterr().out
    assert main(["predict", "--ckpt_path", "runs/ccd_synthetic"]) == 2
    assert "Fit a detector on it" in capsys.readouterr().err


def test_pretraining_is_not_exported(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--ckpt_path", "runs/ccd_synthetic"]) == 2
    assert "a checkpoint of CCD, not of a detector; ccd fit makes one" in capsys.readouterr().err
    assert not list(Path("runs/ccd_synthetic").rglob("*.onnx"))


def test_runs_may_be_elsewhere(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").symlink_to(workspace / "runs")
    found = {runs.find_checkpoint(Path(path)) for path in ("runs/padim_synthetic", "runs/padim_synthetic/latest")}
    assert {file.resolve() for file in found} == {
        (workspace / "runs/padim_synthetic/version_0/checkpoints/best.ckpt").resolve()
    }
    assert runs.newest_run().is_dir()


def test_a_run_without_a_checkpoint_is_not_finished(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--trainer.logger.init_args.name", "ccd_cut", "--trainer.callbacks", "null"]
    unsaved = [*words, "--trainer.enable_checkpointing", "false", "--trainer.max_epochs", "1"]
    assert main([*CCD, *unsaved]) == 2
    assert "runs/ccd_cut/version_0: no checkpoint was written" in capsys.readouterr().err
    broken = Path("broken.ckpt")
    broken.write_bytes(b"nothing")
    for path, expected in (
        ("broken.ckpt", "broken.ckpt: not a readable"),
        ("runs/padim_synthetic", "is of ccd_lightning"),
    ):
        words = ["--ckpt_path", path, "--trainer.logger.init_args.name", "ccd_cut"]
        assert main([*CCD, *words]) == 2
        assert expected in capsys.readouterr().err
    assert main(["test", "--ckpt_path", "runs/ccd_cut"]) == 2
    assert "runs/ccd_cut: no finished run in this folder" in capsys.readouterr().err


def test_fit_without_validation(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--trainer.limit_val_batches", "0", "--trainer.logger.init_args.name", "padim_unvalidated"]
    assert main([*PADIM, "--model.encoder.weights", "null", *words]) == 0
    assert main(["test", "--ckpt_path", "runs/padim_unvalidated"]) == 0
    found = metrics("runs/padim_unvalidated/latest")
    assert found["run"]["threshold"] is None
    assert found["undefined"]["image/sensitivity"] == "no threshold"
    assert main(["predict", "--ckpt_path", "runs/padim_unvalidated"]) == 0
    assert "without decisions, because the run has no threshold" in capsys.readouterr().out
    for name in ("predictions.csv", "unlabelled_predictions.csv"):
        rows = csv.DictReader((Path("runs/padim_unvalidated/latest") / name).read_text().splitlines())
        assert {(row["percentile"], row["decision"]) for row in rows} == {("", "")}
    assert 0 <= found["metrics"]["image/auroc"] <= 1


def test_other_sizes_and_places_are_reported(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smaller = ["--data.size", "32", "--data.root", str(tmp_path / "smaller")]
    assert main(["test", "--ckpt_path", "runs/padim_synthetic", *smaller]) == 2
    assert "Images of 32 x 32 px do not fit this detector" in capsys.readouterr().err
    again = ["--trainer.logger.init_args.version", "version_0", "--model.encoder.weights", "null"]
    assert main([*PADIM, *again]) == 2
    assert "runs/padim_synthetic/version_0: this folder already contains another run" in capsys.readouterr().err


def test_synthetic_fundus_images_are_fitted_and_tested(workspace: Path) -> None:
    words = ["--config", "configs/padim_synthetic_fundus.yaml", *DATA, "--model.encoder.weights", "null"]
    assert main(["fit", *words]) == 0
    assert main(["test"]) == 0
    assert "image/auroc/cup_subtle" in metrics("runs/padim_synthetic_fundus/latest")["metrics"]


def test_nothing_is_recorded_without_a_run_folder(workspace: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in workspace.iterdir()), sorted(path.name for path in workspace.parent.iterdir())
    words = ["--model.encoder.weights=null", "--trainer.enable_checkpointing=false", "--trainer.callbacks=null"]
    for option in (["--trainer.logger", "false"], ["--trainer.fast_dev_run", "true"]):
        assert main([*PADIM, *words, *option]) == 0
    after = sorted(path.name for path in workspace.iterdir()), sorted(path.name for path in workspace.parent.iterdir())
    assert before == after


def test_own_images_without_masks_are_fitted_and_tested(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "mine"
    shutil.copytree(workspace / "data/synthetic_colonoscopy", root)
    shutil.rmtree(root / "ground_truth")
    own = ["--data.root", str(root), "--data.size", "64", "--data.batch_size", "6"]
    capsys.readouterr()
    assert main(["fit", "--config", "configs/ccd_folder.yaml", *own, *VIEWS, "--trainer.max_epochs=1"]) == 0
    command = f"ccd fit --config neighbours_folder --data.root {root} --data.size 64"
    command += " --model.encoder.weights runs/ccd_folder/version_0"
    assert f"Next: {command}\n" in capsys.readouterr().out
    assert main([*command.split()[1:], *own]) == 0
    assert main(["test"]) == 0
    assert metrics("runs/neighbours_folder/latest")["undefined"]["pixel/auroc"] == "no masks"
    for kind in root.glob("test/polyp_*"):
        shutil.rmtree(kind)
    assert main(["test"]) == 0
    alone = metrics("runs/neighbours_folder/latest")
    assert alone["undefined"]["image/auroc"] == "no abnormal images"
    assert set(alone["metrics"]) == {"image/specificity"}
    figures = {path.name for path in Path("runs/neighbours_folder/latest/figures").iterdir()}
    assert figures == {"histogram.png", "overlays.png"}  # no curves of the test before


def test_fit_names_the_next_command(workspace: Path) -> None:
    outputs = json.loads((workspace / "output.json").read_text())
    following = "ccd fit --config neighbours_synthetic --data.size 64"
    assert outputs["fit ccd_synthetic"].endswith(f"\nNext: {following}\n")
    assert outputs["fit padim_synthetic"].endswith("\nThe run is in runs/padim_synthetic/version_0\nNext: ccd test\n")


def test_family_is_chosen_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    config = ["fit", "--config", str(CONFIGS / "ccd_synthetic.yaml")]
    cutout = ["--data.views.family", "ccd_lightning.transforms.strong.Cutout", "--data.views.family.side"]
    with pytest.raises(SystemExit):
        main([*config, *cutout, "0.5", "--print_config"])
    family = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["views"]["init_args"]["family"]
    assert family == {"class_path": "ccd_lightning.transforms.strong.Cutout", "init_args": {"side": 0.5}}
    assert main([*config, *cutout, "2"]) == 2
    assert "data.views.family.side is 2, but must be above 0 and up to 1" in capsys.readouterr().err
    assert main([*config, *cutout[:2], "--data.views.family.sidd", "2"]) == 2
    assert "There is no option 'data.views.family.sidd'; did you mean 'side'?" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*configure_optimizers. will be overridden")  # by --optimizer
@pytest.mark.parametrize("option", ["--model.optimizer", "--optimizer"])
def test_optimiser_is_replaced_from_the_command_line(option: str, workspace: Path) -> None:
    words = ["--trainer.logger.init_args.name", "ccd_sgd", "--trainer.max_epochs", "1"]
    sgd = [option, "SGD", f"{option}.lr", "0.01", f"{option}.momentum", "0.9"]
    assert main([*CCD, *words, *sgd]) == 0
    checkpoint = read_checkpoint(workspace / "runs/ccd_sgd/latest/checkpoints/last.ckpt")
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["momentum"] == 0.9
    assert len(checkpoint["lr_schedulers"]) == (option == "--model.optimizer")  # which keeps warm-up and cosine


def test_the_ways_out_of_a_collapse_exist(capsys: pytest.CaptureFixture[str]) -> None:
    ways = ["--model.optimizer.lr", "0.0001", "--model.warmup_steps", "100", "--model.encoder.weights", "imagenet"]
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(CONFIGS / "ccd_synthetic.yaml"), *ways, "--print_config"])
    model = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert model["optimizer"]["init_args"]["lr"] == 0.0001
    assert model["warmup_steps"] == 100
    assert model["encoder"]["weights"] == "imagenet"


def test_a_run_that_collapses_is_reported_within_50_steps(workspace: Path) -> None:
    words = ["--trainer.logger.init_args.name", "ccd_collapsed", "--trainer.max_epochs", "25"]
    reckless = ["--model.optimizer.lr", "0.1", "--model.warmup_steps", "0", "--trainer.check_val_every_n_epoch", "25"]
    with pytest.warns(UserWarning, match="COLLAPSED.*--model.optimizer.lr"):
        assert main([*CCD, *words, *reckless]) == 0
    record = json.loads(Path("runs/ccd_collapsed/latest/run.json").read_text())
    assert record["steps"] <= 50
    assert record["versions"].keys() == {"ccd-lightning", "PyTorch", "Lightning", "Python"}
    assert record["versions"]["PyTorch"] == torch.__version__


def test_a_detector_is_exact_whatever_the_precision(workspace: Path) -> None:
    words = ["--trainer.precision", "bf16-mixed", "--trainer.logger.init_args.name", "padim_bf16"]
    assert main([*PADIM, *words]) == 0
    assert main(["test"]) == 0
    halved, whole = (metrics(f"runs/padim_{name}/latest") for name in ("bf16", "synthetic"))
    assert halved["metrics"] == whole["metrics"]
    assert halved["run"]["threshold"] == whole["run"]["threshold"]


def test_load_in_python(workspace: Path) -> None:
    detector = load("runs/padim_synthetic")
    table = Path("runs/padim_synthetic/latest/predictions.csv").read_text().splitlines()
    rows = list(csv.DictReader(table))
    images = np.stack([read_image(Path(row["path"]), Preprocessing(64)) for row in rows])
    scores, maps = detector(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    assert maps.shape == (11, 64, 64)
    assert scores.tolist() == pytest.approx([float(row["score"]) for row in rows], rel=1e-4)
    decisions = ["abnormal" if score > detector.threshold else "normal" for score in scores]
    assert decisions == [row["decision"] for row in rows]
    with pytest.raises(UserError, match="not of a detector"):
        load("runs/ccd_synthetic")


def test_compare_prints_the_metrics_of_both_runs(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["compare", "runs/padim_synthetic", "runs/ccd_synthetic"]) == 0
    table = capsys.readouterr().out
    value = metrics("runs/padim_synthetic/latest")["metrics"]["image/auroc"]
    assert f"{value:.3f} [" in next(line for line in table.splitlines() if line.startswith("image/auroc"))
    other = workspace / "runs/elsewhere"
    other.mkdir()
    (other / "metrics.json").write_text(
        json.dumps(metrics("runs/padim_synthetic/latest") | {"data": {"root": "x", "images": 3, "split": "y"}})
    )
    assert main(["compare", "runs/padim_synthetic", "runs/elsewhere"]) == 2
    assert "was tested on 11 images of data/synthetic_colonoscopy, runs/elsewhere on 3 of x" in capsys.readouterr().err
    assert main(["compare", "runs/nothing"]) == 2
    assert "runs/nothing: no such run" in capsys.readouterr().err


def test_some_masks_are_enough_for_pixel_metrics(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = metrics("runs/padim_synthetic/latest")
    for kind in ("subtle", "moderate"):
        (workspace / f"data/synthetic_colonoscopy/ground_truth/polyp_{kind}/0000.png").unlink()
    capsys.readouterr()
    assert main(["test", "--ckpt_path", "runs/padim_synthetic"]) == 0
    message = "Pixel metrics are of 4 of the 6 abnormal images, those with a mask, and of all normal ones."
    assert message in capsys.readouterr().out
    found = metrics("runs/padim_synthetic/latest")
    assert (found["data"]["masks"], found["data"]["abnormal"]) == (4, 6)
    assert found["metrics"]["image/auroc"] == whole["metrics"]["image/auroc"]
    assert 0 < found["metrics"]["pixel/auroc"] != whole["metrics"]["pixel/auroc"]
    assert message in Path("runs/padim_synthetic/latest/report.html").read_text()
    assert main(["compare", "runs/padim_synthetic"]) == 0
    assert message in capsys.readouterr().out
