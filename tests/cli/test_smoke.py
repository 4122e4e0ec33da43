"""The whole path with the real encoder, from images to a detector in Python."""

from pathlib import Path

import pytest

from ccd_lightning import load
from ccd_lightning.checkpoints import read_checkpoint
from ccd_lightning.cli import main
from tests.runs import CCD, CONFIGS, PADIM, metrics

pytestmark = [pytest.mark.fit, pytest.mark.usefixtures("real_encoder")]


def test_pretraining_detector_test_and_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(CONFIGS)
    for words in ([*CCD, "--trainer.max_epochs=1"], PADIM, ["test"]):
        assert main(words) == 0
    run = Path("runs/padim_synthetic/latest")
    assert 0 <= metrics(run)["metrics"]["pixel/auroc"] <= 1
    assert (run / "report.html").is_file()
    encoders = [
        {name: tensor.tolist() for name, tensor in read_checkpoint(file)["state_dict"].items() if "layer4" in name}
        for file in (Path("runs/ccd_synthetic/latest/checkpoints/best.ckpt"), run / "checkpoints/best.ckpt")
    ]
    assert encoders[0] == encoders[1]
    detector = load("runs/padim_synthetic")
    scores, maps = detector(detector.read("data/synthetic_colonoscopy/test/good/0000.png"))
    assert scores.shape == (1,)
    assert maps.shape == (1, 64, 64)
