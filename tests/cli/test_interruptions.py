"""Runs that are stopped from outside, in real processes, end as if they had not been."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ccd_lightning.data.synthetic import synthesize
from ccd_lightning.modules.handover import read_checkpoint

CONFIG = Path(__file__).parents[2] / "configs" / "ccd_folder.yaml"
WORDS = [
    *("--data.root", "images", "--data.size", "64", "--data.views.size", "32", "--data.views.patch_size", "16"),
    *("--data.batch_size", "2", "--trainer.check_val_every_n_epoch", "2"),
]
RANKS = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("stopped")
    synthesize(place / "images", "colonoscopy", size=64, train=14, test_good=1, test_abnormal=3)
    return place


def start(place: Path, name: str, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "ccd_lightning", "fit", "--config", str(CONFIG), *WORDS, *words]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a job in the background ignores
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, "--trainer.logger.init_args.name", name], cwd=place, env=environment, **pipes)


def finish(process: "subprocess.Popen[str]", timeout: float = 240) -> str:
    try:
        told = "".join(process.communicate(timeout=timeout))
    finally:
        process.kill()
    return told


def stop(place: Path, name: str, how: signal.Signals, *words: str) -> tuple[int, str]:
    """Starts a fit, and stops it by a signal some time after it has saved."""
    with start(place, name, *words) as process:
        last = place / "runs" / name / "version_0/checkpoints/last.ckpt"
        deadline = time.monotonic() + 240
        while not last.is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.4)  # into the next epoch, with batches on their way
        process.send_signal(how)
        told = finish(process)
    return process.returncode, told


@pytest.mark.parametrize(("how", "code", "ranks"), [(signal.SIGKILL, -9, []), (signal.SIGTERM, 143, RANKS)])
def test_a_stopped_run_ends_as_if_it_had_not_been(
    place: Path, how: signal.Signals, code: int, ranks: list[str]
) -> None:
    names = [f"{name}_{how.name}" for name in ("whole", "stopped")]
    words = [*ranks, "--trainer.max_epochs", "8"]
    with start(place, names[0], *words) as process:
        told = finish(process)
    assert process.returncode == 0, told
    returned, told = stop(place, names[1], how, *words)
    assert returned == code, told
    assert how is signal.SIGKILL or "ccd: terminated. Go on with: ccd fit --config" in told
    run = place / "runs" / names[1] / "version_0"
    assert not (run / "run.json").exists(), "it was over before it was stopped"
    with start(place, names[1], *words, "--ckpt_path", "last") as process:
        told = finish(process)
    assert process.returncode == 0, told
    assert f"fit: going on from runs/{names[1]}/version_0/checkpoints/last.ckpt" in told
    whole, resumed = (
        [read_checkpoint(place / "runs" / name / "version_0/checkpoints" / file) for file in ("last.ckpt", "best.ckpt")]
        for name in names
    )
    for one, other in zip(whole, resumed, strict=True):
        assert one["global_step"] == other["global_step"]
        assert all(torch.equal(tensor, other["state_dict"][name]) for name, tensor in one["state_dict"].items())


def test_interrupted_fit_says_how_to_go_on(place: Path) -> None:
    code, told = stop(place, "interrupted", signal.SIGINT, "--trainer.max_epochs", "100000")
    assert code == 130
    assert "ccd: interrupted. Go on with: ccd fit --config runs/interrupted/version_0/config.yaml --ckpt_path" in told
    assert "Traceback" not in told
