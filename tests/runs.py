"""The runs that tests share, and the options that make commands small."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from ccd_lightning.cli import main

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
TINY = {"size": 64, "train": 12, "test_good": 5, "test_abnormal": 6}
DATA = [f"--data.{key}={value}" for key, value in TINY.items()]
VIEWS = ["--data.views.size=32", "--data.views.patch_size=16"]
CCD = ["fit", "--config", "configs/ccd_synthetic.yaml", *DATA, "--data.batch_size=6", *VIEWS, "--trainer.max_epochs=2"]
CCD_LOCAL = [
    *("fit", "--config", "configs/ccd_synthetic_local.yaml", *DATA, "--data.batch_size=5", "--data.num_workers=0"),
    *(*VIEWS, "--trainer.max_epochs=1"),
]
PADIM = ["fit", "--config", "configs/padim_synthetic.yaml", *DATA, "--data.batch_size=6"]
IGD = [
    *("fit", "--config", "configs/igd_synthetic.yaml", *DATA, "--data.batch_size=4", "--trainer.max_epochs=3"),
    *("--trainer.check_val_every_n_epoch=1", "--model.training.estimate_every=2", "--model.training.interpolation=0.1"),
    *("--model.latent_size=16", "--model.global_scale.size=64", "--model.global_scale.width=8"),
    *("--model.local_scale.width=8", "--model.local_scale.windows_per_image=2"),
]


def train(place: Path) -> None:
    """Fits and tests a run of each model in a new folder, through the command line; output.json has the output."""
    place.mkdir()
    (place / "configs").symlink_to(CONFIGS)
    outputs = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name, fit in {
            "ccd_synthetic": CCD,
            "ccd_synthetic_local": CCD_LOCAL,
            "padim_synthetic": PADIM,
            "igd_synthetic": IGD,
        }.items():
            for command in (fit, ["test"]):
                with redirect_stdout(io.StringIO()) as output:
                    assert main(command) == 0
                outputs[f"{command[0]} {name}"] = output.getvalue()
    (place / "output.json").write_text(json.dumps(outputs))


def metrics(run: str | Path) -> dict[str, Any]:
    """The content of a run's metrics.json."""
    content: dict[str, Any] = json.loads((Path(run) / "metrics.json").read_text())
    return content
