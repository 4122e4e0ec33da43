"""Real processes, through the command line: two give what one gives, and an interrupted one says how to go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ccd_lightning.data.synthetic import synthesize

CONFIGS = Path(__file__).parents[2] / "configs"
RANKS = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
VIEWS = ["--data.views.size", "32", "--data.views.patch_size", "16", "--trainer.max_epochs", "1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ranks")
    synthesize(place / "images", "colonoscopy", size=64, train=13, test_good=4, test_abnormal=3)  # 10 + 3: uneven
    return place


def ccd(place: Path, *words: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ccd_lightning", *words]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def fit(place: Path, kind: str, name: str, *words: str) -> Path:
    own = [
        "--data.root",
        "images",
        "--data.size",
        "64",
        "--data.batch_size",
        "3",
        "--trainer.logger.init_args.name",
        name,
    ]
    ccd(place, "fit", "--config", str(CONFIGS / f"{kind}_folder.yaml"), *own, *words)
    return place / "runs" / name / "version_0"


def measured(place: Path, run: Path, *words: str) -> dict[str, Any]:
    ccd(place, "test", "--ckpt_path", str(run), *words)
    content: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return content


def test_padim(place: Path) -> None:
    alone = fit(place, "padim", "alone", "--model.encoder.weights", "null")
    shared = fit(place, "padim", "shared", "--model.encoder.weights", "null", *RANKS)
    results = [measured(place, alone), measured(place, shared), measured(place, shared, *RANKS)]
    assert results[1]["run"]["threshold"] == pytest.approx(results[0]["run"]["threshold"], rel=1e-5)
    for other in results[1:]:
        assert other["metrics"] == pytest.approx(results[0]["metrics"], rel=1e-5)


def test_pretraining_runs(place: Path) -> None:
    run = fit(place, "ccd", "pretrained", *VIEWS, *RANKS)
    assert measured(place, run)["metrics"]["image/auroc"] == measured(place, run, *RANKS)["metrics"]["image/auroc"]


def test_interrupted_fit_says_how_to_go_on(place: Path) -> None:
    own = ["--data.root", "images", "--data.size", "64", "--data.batch_size", "5", *VIEWS[:-1], "100000"]
    keep = ["--trainer.check_val_every_n_epoch", "1", "--trainer.logger.init_args.name", "interrupted"]
    words = [sys.executable, "-m", "ccd_lightning", "fit", "--config", str(CONFIGS / "ccd_folder.yaml"), *own, *keep]
    pipes: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a job in the background ignores
    with subprocess.Popen(words, cwd=place, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes) as process:
        last = place / "runs/interrupted/version_0/checkpoints/last.ckpt"
        deadline = time.monotonic() + 240
        while not last.is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        try:
            told = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 130
    assert "ccd: interrupted. Go on with: ccd fit --config runs/interrupted/version_0/config.yaml --ckpt_path" in told
    assert "Traceback" not in told
