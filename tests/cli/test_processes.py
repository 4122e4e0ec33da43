"""Real processes, through the command line: two give what one gives."""

import json
import os
import subprocess
import sys
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
