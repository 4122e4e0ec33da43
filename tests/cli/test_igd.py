"""IGD from pretraining to a test, through the shipped configs at smaller sizes."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from ccd_lightning import load
from ccd_lightning.checkpoints import read_checkpoint
from ccd_lightning.cli import main
from ccd_lightning.data.images import read_image
from ccd_lightning.data.preprocessing import Preprocessing
from tests.cli.test_resume import CutOff, saved
from tests.runs import CCD_LOCAL, IGD

pytestmark = pytest.mark.usefixtures("workspace")


def test_each_scale_has_its_own_encoder() -> None:
    state = read_checkpoint(Path("runs/igd_synthetic/latest/checkpoints/last.ckpt"))["state_dict"]
    for branch, name in (("", "encoder"), ("_local", "local_encoder")):
        pretrained = read_checkpoint(Path(f"runs/ccd_synthetic{branch}/latest/checkpoints/best.ckpt"))["state_dict"]
        own = {key.removeprefix("encoder."): value for key, value in pretrained.items() if key.startswith("encoder.")}
        assert own
        assert all(torch.equal(value, state[f"{name}.{key}"]) for key, value in own.items())


def test_the_same_evaluation_as_other_detectors() -> None:
    run = Path("runs/igd_synthetic/latest")
    found = json.loads((run / "metrics.json").read_text())
    assert {"image/auroc", "pixel/auroc"} <= set(found["metrics"])
    assert (run / "figures/overlays.png").is_file()
    record = json.loads((run / "run.json").read_text())
    assert record["encoder"].startswith("global_scale runs/ccd_synthetic/")
    assert "local_scale runs/ccd_synthetic_local/" in record["encoder"]


def test_a_checkpoint_needs_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = list(csv.DictReader(Path("runs/igd_synthetic/latest/predictions.csv").read_text().splitlines()))
    images = np.stack([read_image(Path(row["path"]), Preprocessing(64)) for row in rows])
    shutil.copy("runs/igd_synthetic/latest/checkpoints/last.ckpt", tmp_path / "moved.ckpt")
    monkeypatch.chdir(tmp_path)
    detector = load("moved.ckpt")
    with torch.no_grad():
        scores, maps = detector(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    assert maps.shape == (11, 64, 64)
    assert scores.tolist() == pytest.approx([float(row["score"]) for row in rows], rel=1e-4)


def test_the_weights_of_the_score_can_be_changed_afterwards() -> None:
    shutil.copytree("runs/igd_synthetic/latest", "runs/reweighed/version_0")
    with pytest.warns(match=r"model\.local_scale\.weight is 0\.0, but was 0\.5 when the thresholds were computed"):
        assert main(["test", "--ckpt_path", "runs/reweighed/version_0", "--model.local_scale.weight", "0"]) == 0
    before, after = (
        json.loads((Path("runs") / name / "metrics.json").read_text())
        for name in ("igd_synthetic/latest", "reweighed/version_0")
    )
    assert before["metrics"]["pixel/auroc"] != after["metrics"]["pixel/auroc"]
    # A threshold of another score decides nothing.
    assert before["run"]["threshold"] > 0
    assert after["run"]["threshold"] is None
    # Nor is the report one of the detector as it was fitted.
    assert before["run"]["changed"] == {}
    assert after["run"]["changed"] == {"model.local_scale.weight": 0.0}
    message = "The test used other settings than the fit: model.local_scale.weight 0.0."
    assert message in Path("runs/reweighed/version_0/report.html").read_text()
    assert message not in Path("runs/igd_synthetic/latest/report.html").read_text()
    assert "image/f1" in set(before["metrics"]) - set(after["metrics"])


def test_the_dashboard_shows_losses_and_reconstructions() -> None:
    events = EventAccumulator("runs/igd_synthetic/version_0", {"images": 0}).Reload()
    assert len(events.Images("val/reconstructions")) == 3
    for scale in ("global_scale", "local_scale"):
        for term in ("reconstruction", "gaussian", "interpolation", "critic"):
            values = [event.value for event in events.Scalars(f"train/{scale}/{term}")]
            assert len(values) == 9
            assert np.isfinite(values).all()


def test_one_command_names_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    message = json.loads(Path("output.json").read_text())["fit ccd_synthetic_local"]
    command = "ccd fit --config igd_synthetic --data.size 64 --model.global_scale.size 64"
    assert message.endswith(f"\nNext: {command}\n")
    assert main([*CCD_LOCAL, "--trainer.logger.init_args.name", "x"]) == 0
    command = capsys.readouterr().out.rpartition("Next: ccd ")[2].strip()
    assert command.startswith("fit --config igd_folder --data.root data/synthetic_colonoscopy --data.size 64")
    command = command.replace("GLOBAL_RUN", "runs/ccd_synthetic")
    small = ["--data.batch_size=5", "--trainer.max_epochs=1", "--model.latent_size=16"]
    assert main([*command.split(), *small]) == 0
    record = json.loads(Path("runs/igd_folder/latest/run.json").read_text())
    assert "local_scale runs/x/version_0" in record["encoder"]


@pytest.mark.filterwarnings("ignore:model.local_scale.weight is 0.5, but was 0.0")
def test_a_scale_that_was_not_trained_is_not_used(capsys: pytest.CaptureFixture[str]) -> None:
    alone = ["--model.local_scale.weight=0", "--model.local_encoder.weights=runs/nothing", "--trainer.max_epochs=1"]
    assert main([*IGD, *alone, "--trainer.logger.init_args.name", "igd_global"]) == 0
    assert main(["test"]) == 0
    capsys.readouterr()
    assert main(["test", "--ckpt_path", "runs/igd_global", "--model.local_scale.weight=0.5"]) == 2
    assert "local_scale was not trained: leave --model.local_scale.weight at 0" in capsys.readouterr().err


def test_a_run_goes_on_for_longer_than_was_planned() -> None:
    words = [*IGD, "--trainer.logger.init_args.name", "igd_longer"]
    assert main([*words, "--trainer.max_epochs=1"]) == 0
    before = saved(Path("runs/igd_longer/latest"), "last.ckpt")[0][1]
    assert main([*words, "--ckpt_path", "last"]) == 0
    steps, after = saved(Path("runs/igd_longer/latest"), "last.ckpt")[0]
    assert steps == 9
    assert not torch.equal(before["whole.decoder.first.weight"], after["whole.decoder.first.weight"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.local_scale.stridee=3"], "did you mean 'stride'?"),
        (["--model.local_scale.stride=5"], "windows of 32 px every 5 px do not end where images of 64 px do"),
        (
            ["--data.size=32", "--data.root=data/other"],
            "give --data.size 64, or fit one with --model.global_",
        ),
        (["--model.local_encoder.weights=runs/nothing"], "or go without by --model.local_encoder.weights null"),
        (["--trainer.max_epochs=-1"], "give --trainer.max_epochs or .max_steps"),
    ],
)
def test_mistakes_are_reported(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*IGD, *words, "--trainer.logger.init_args.name", "mistaken"]) == 2
    assert message in capsys.readouterr().err


# Centre and scale are estimated when epochs 0 and 2 begin.
@pytest.mark.parametrize(("epoch", "batch", "whitened"), [(1, 2, "true"), (2, 0, "false"), (2, 1, "true")])
def test_a_resumed_fit_is_the_uninterrupted_one(epoch: int, batch: int, whitened: str) -> None:
    latents = ["--model.training.fine_tune=true", f"--model.whitened={whitened}"]
    words = [*IGD, *latents, f"--trainer.logger.init_args.name=igd_{epoch}_{batch}"]
    cut = f"--trainer.callbacks+={CutOff.__module__}.CutOff"
    assert main([*words, cut, f"--trainer.callbacks.epoch={epoch}", f"--trainer.callbacks.batch={batch}"]) == 0
    run = Path(f"runs/igd_{epoch}_{batch}/version_0")
    whole = saved(run, "last.ckpt")
    shutil.rmtree(run)
    shutil.move("cut", run)
    assert main([*words, "--ckpt_path", "last"]) == 0
    for (steps, state), (again, other) in zip(whole, saved(run, "last.ckpt"), strict=True):
        assert steps == again == 9
        assert all(torch.equal(tensor, other[name]) for name, tensor in state.items())
        assert "local.gaussian.scale" in state


@pytest.mark.parametrize("steps", [4, 6])  # of 3 in an epoch
def test_a_number_of_steps_ends_with_a_checkpoint(steps: int) -> None:
    length = ["--trainer.max_epochs=-1", f"--trainer.max_steps={steps}", "--trainer.check_val_every_n_epoch=50"]
    assert main([*IGD, *length, f"--trainer.logger.init_args.name=igd_{steps}_steps"]) == 0
    (reached, state), *_ = saved(Path(f"runs/igd_{steps}_steps/version_0"), "last.ckpt")
    assert reached == steps
    assert state["threshold"].isfinite()


def test_mixed_precision_clipping_and_accumulation() -> None:
    words = ["--trainer.precision=bf16-mixed", "--trainer.gradient_clip_val=0.5", "--trainer.accumulate_grad_batches=2"]
    assert main([*IGD, *words, "--trainer.logger.init_args.name", "igd_bf16"]) == 0
    state = read_checkpoint(Path("runs/igd_bf16/latest/checkpoints/last.ckpt"))
    assert state["global_step"] == 6
    assert all(tensor.isfinite().all() for tensor in state["state_dict"].values())
    assert main(["test"]) == 0
