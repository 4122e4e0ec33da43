"""Runs that are stopped from outside, in real processes, end as if they had not been."""

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ccd_lightning.checkpoints import read_checkpoint
from ccd_lightning.cli import BROKEN_PIPE, main
from ccd_lightning.data.synthetic import synthesize
from tests import processes
from tests.processes import RANKS
from tests.runs import CONFIGS, VIEWS

FIT = [
    *("fit", "--config", str(CONFIGS / "ccd_folder.yaml"), "--data.root", "images", "--data.size", "64", *VIEWS),
    *("--data.batch_size", "2", "--trainer.check_val_every_n_epoch", "2", "--trainer.max_epochs", "4"),
]
NAME, HOLD = "--trainer.logger.init_args.name", f"--trainer.callbacks+={__name__}.Hold"
pytestmark = [pytest.mark.fit, pytest.mark.process]


class Hold(Callback):
    """Says by a file that training is in the middle of an epoch, after a checkpoint, and waits there to be stopped."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (2, 2) and trainer.is_global_zero:
            Path("reached").touch()
            wait_for(Path("signalled"))


def wait_for(file: Path, process: "subprocess.Popen[str] | None" = None) -> None:
    """Waits until a file is there, unless the process that is to write it has ended."""
    deadline = time.monotonic() + 240
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} did not come"
        assert process is None or process.poll() is None, "".join(process.communicate())
        time.sleep(0.01)


def assert_same_checkpoints(whole: Path, resumed: Path) -> None:
    for file in ("last.ckpt", "best.ckpt"):
        one, other = (read_checkpoint(run / "checkpoints" / file) for run in (whole, resumed))
        assert one["global_step"] == other["global_step"]
        assert all(torch.equal(tensor, other["state_dict"][name]) for name, tensor in one["state_dict"].items())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    synthesize(tmp_path / "images", "colonoscopy", size=64, train=14, test_good=1, test_abnormal=3)
    return tmp_path


def stop(name: str, how: signal.Signals, *words: str) -> tuple[int, str]:
    """Starts a fit, and stops it by a signal in the middle of an epoch: its exit code, and what it said."""
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a job in the background ignores
    started = processes.command(*FIT, *words, HOLD, NAME, name)
    with subprocess.Popen(started, env=processes.ENVIRONMENT, **pipes) as process:
        try:
            wait_for(Path("reached"), process)
            process.send_signal(how)
            Path("signalled").touch()
            message = "".join(process.communicate(timeout=240))
            assert not Path("runs", name, "version_0/run.json").exists(), "it was over before it was stopped"
        finally:
            process.kill()
    return process.returncode, message


def test_a_killed_run_ends_as_if_it_had_not_been(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = stop("stopped", signal.SIGKILL)
    assert code == -signal.SIGKILL, message
    capsys.readouterr()
    assert main([*FIT, NAME, "stopped", "--ckpt_path", "last"]) == 0
    assert "fit: resuming from runs/stopped/version_0/checkpoints/last.ckpt" in capsys.readouterr().out
    assert main([*FIT, NAME, "whole"]) == 0
    assert_same_checkpoints(*(place / "runs" / name / "version_0" for name in ("whole", "stopped")))


def test_a_terminated_run_of_two_ranks_saves_and_ends_as_if_it_had_not_been(place: Path) -> None:
    code, message = stop("stopped", signal.SIGTERM, *RANKS)
    assert code == 143, message
    assert "ccd: terminated. Resume with: ccd fit --config" in message
    message = processes.run(*FIT, *RANKS, NAME, "stopped", "--ckpt_path", "last")
    assert "fit: resuming from runs/stopped/version_0/checkpoints/last.ckpt" in message
    processes.run(*FIT, *RANKS, NAME, "whole")
    assert_same_checkpoints(*(place / "runs" / name / "version_0" for name in ("whole", "stopped")))


def test_interrupted_fit_says_how_to_go_on(place: Path) -> None:
    code, message = stop("interrupted", signal.SIGINT)
    assert code == 130
    assert (
        "ccd: interrupted. Resume with: ccd fit --config runs/interrupted/version_0/config.yaml --ckpt_path" in message
    )
    assert "Traceback" not in message


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="pipes of this system do not break")
def test_a_closed_pipe_causes_no_traceback() -> None:
    with subprocess.Popen(
        processes.command("data", "list"), env=processes.ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == BROKEN_PIPE
