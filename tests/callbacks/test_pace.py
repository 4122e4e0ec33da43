"""How long a fit takes, how often it is logged, and how often it validates."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from ccd_lightning.callbacks import pace
from ccd_lightning.callbacks.pace import Pace, forecast
from ccd_lightning.checkpoints import read_checkpoint
from ccd_lightning.cli import main
from tests.runs import CCD, CONFIGS, VIEWS


@pytest.mark.parametrize(
    ("steps", "rate", "expected"),
    [
        (3000, 2.0, "about 25 minutes: 3,000 steps at 2.0 steps per second"),
        (60, 2.0, "about 30 seconds: 60 steps at 2.0 steps per second"),
        (662_000, 20, "about 9.2 hours: 662,000 steps at 20.0 steps per second"),
        (662_000, 2, "about 3.8 days: 662,000 steps at 2.0 steps per second"),
        (600, 0.25, "about 40 minutes: 600 steps of 4.0 seconds"),
    ],
)
def test_the_time_is_printed_in_words(steps: int, rate: float, expected: str) -> None:
    assert forecast(steps, rate) == expected


def trainer(planned: float, **settings: Any) -> Any:
    usual = {"global_step": 0, "is_global_zero": True, "log_every_n_steps": 1, "check_val_every_n_epoch": 20}
    usual |= {"max_epochs": -1, "num_training_batches": 3, "accumulate_grad_batches": 1}
    loop = SimpleNamespace(max_epochs=(usual | settings)["max_epochs"])
    return SimpleNamespace(estimated_stepping_batches=planned, fit_loop=loop, **usual | settings)


def fit(own: Any, steps: int, seconds: float, monkeypatch: pytest.MonkeyPatch, validate_at: int = -1) -> None:
    """Takes steps of so many seconds by a clock of its own, after two slow ones."""
    clock = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: clock)
    callback: Any = Pace()
    callback.on_train_start(own, None)
    for step in range(steps):
        clock += seconds if step >= 2 else 100 * seconds
        own.global_step += 1
        callback.on_train_batch_end(own, None, None, None, step)
        callback.on_train_batch_end(own, None, None, None, step)  # of a step that accumulates
        if step == validate_at:
            callback.on_validation_start(own, None)
            clock += 1000
            callback.on_validation_end(own, None)


@pytest.mark.parametrize("validate_at", [-1, 4])
@pytest.mark.parametrize("first", [0, 1000])
def test_the_time_is_measured_on_the_first_steps_and_printed_once(
    first: int, validate_at: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(trainer(3000 + first, global_step=first), 40, 0.5, monkeypatch, validate_at)
    message = "fit: about 25 minutes: 3,000 steps at 2.0 steps per second, not counting validation\n"
    assert capsys.readouterr().out == message


@pytest.mark.parametrize(("planned", "settings"), [(float("inf"), {}), (3000, {"is_global_zero": False})])
def test_nothing_is_printed_without_an_end_or_on_other_ranks(
    planned: float, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(trainer(planned, **settings), 40, 0.5, monkeypatch)
    assert capsys.readouterr().out == ""


def test_slow_steps_are_reported_early(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fit(trainer(600), 3, 30.0, monkeypatch)
    assert "about 5.0 hours: 600 steps of 30.0 seconds" in capsys.readouterr().out


@pytest.mark.parametrize(("planned", "every"), [(600, 1), (10_000, 1), (10_001, 2), (662_000, 67)])
def test_long_fits_are_logged_less_often(planned: int, every: int) -> None:
    callback: Any = Pace()
    callback.thin = True
    own = trainer(planned)
    callback.on_train_start(own, None)
    assert own.log_every_n_steps == every
    assert planned / every * 18 * 101 < 50e6  # bytes, of 18 scalars


@pytest.mark.parametrize(
    ("batches", "epochs", "every"), [(3, -1, 20), (67, -1, 2), (1000, -1, 1), (3, 200, 20), (67, 9, 20)]
)
def test_few_epochs_are_validated_more_often(batches: int, epochs: int, every: int) -> None:
    own, callback = trainer(600, num_training_batches=batches, max_epochs=epochs), Pace()
    callback.on_train_start(own, None)  # type: ignore[arg-type]
    assert own.check_val_every_n_epoch == every


@pytest.mark.parametrize(
    ("batches", "accumulated", "epochs", "shown"),
    [(3, 1, -1, 200), (67, 1, -1, 9), (1000, 1, -1, 1), (3, 2, -1, 400), (3, 1, 7, 7)],
)
def test_the_number_of_epochs_follows_from_the_steps(batches: int, accumulated: int, epochs: int, shown: int) -> None:
    own = trainer(600, num_training_batches=batches, accumulate_grad_batches=accumulated, max_epochs=epochs)
    callback: Any = Pace()
    callback.on_train_start(own, None)
    assert own.fit_loop.max_epochs == shown


@pytest.mark.fit
@pytest.mark.parametrize("own", [[], ["--trainer.log_every_n_steps=2"]])
def test_a_users_interval_wins(
    own: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(CONFIGS)
    monkeypatch.setattr(pace, "READINGS", 5)  # 15 steps: every third
    words = ["--data.batch_size=4", "--data.num_workers=0", "--trainer.max_epochs=5", *own]
    assert main([*CCD, *words]) == 0
    assert len(re.findall("fit: about .* 15 steps at", capsys.readouterr().out)) == 1
    events = EventAccumulator("runs/ccd_synthetic/version_0").Reload()
    every = 2 if own else 3
    for tag in ("train/loss", "train/learning_rate", "train/images_per_second"):
        steps = {event.step for event in events.Scalars(tag)}
        assert len(steps) in (15 // every, 15 // every - 1, 15 // every - 2), tag
    lines = [event.step for event in events.Scalars("warning_line/projection_std")]
    assert (lines[0], lines[-1]) == (0, 15)


@pytest.mark.parametrize("name", ["ccd_folder", "ccd_folder_local", "igd_folder"])
def test_folder_configs_have_a_budget_in_steps(name: str) -> None:
    settings = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["trainer"]
    assert (settings["max_steps"], settings["max_epochs"]) == (600, -1)


@pytest.mark.fit
@pytest.mark.parametrize(
    ("length", "steps"),
    [(["--trainer.max_steps=3"], 3), (["--trainer.max_epochs=1"], 2), (["--trainer.max_epochs", "4"], 8)],
)
def test_a_budget_ends_with_a_validated_checkpoint(
    length: list[str], steps: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder.parent)
    config = yaml.safe_load((CONFIGS / "ccd_folder.yaml").read_text())
    config["trainer"]["max_steps"] = 5
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    words = ["--data.root=images", "--data.size=64", "--data.batch_size=5", "--data.num_workers=0", *VIEWS, *length]
    assert main(["fit", "--config", "mine.yaml", *words]) == 0
    assert "/-2" not in capsys.readouterr().out  # the progress bar's number of epochs
    for file in ("best", "last"):
        checkpoint = read_checkpoint(Path(f"runs/mine/version_0/checkpoints/{file}.ckpt"))
        assert file != "last" or checkpoint["global_step"] == steps
