"""A detector that is shown images which are brought to size otherwise than in its fit says so, and decides nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ccd_lightning.cli import main
from tests.runs import metrics

pytestmark = pytest.mark.fit


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("data.fit", "letterbox", "data.fit is letterbox, but was squash when the thresholds were computed"),
        ("data.crop", "[0.1, 0, 1, 1]", "data.crop is (0.1, 0.0, 1.0, 1.0), but was None"),
        ("data.window", "[0, 200]", "data.window is (0.0, 200.0), but was None"),
    ],
)
def test_thresholds_of_other_images_are_left_out(option: str, value: str, message: str, workspace: Path) -> None:
    run = workspace / "runs/padim_synthetic/latest"
    before = metrics(run)
    with pytest.warns(UserWarning, match=re.escape(message)):
        assert main(["test", "--ckpt_path", str(run), f"--{option}", value]) == 0
    after = metrics(run)
    assert "image/specificity" in before["metrics"]
    assert "image/specificity" not in after["metrics"]
    assert "image/auroc" in after["metrics"]
    assert option in after["run"]["changed"]


def test_the_same_images_change_nothing(workspace: Path, recwarn: pytest.WarningsRecorder) -> None:
    run = workspace / "runs/padim_synthetic/latest"
    before = metrics(run)
    assert main(["test", "--ckpt_path", str(run), "--data.fit", "squash"]) == 0
    assert metrics(run)["metrics"] == before["metrics"]
    assert not [warning for warning in recwarn if "thresholds" in str(warning.message)]


def test_a_letterbox_is_not_written_into_copies(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "prepare", "--root", "data/synthetic_colonoscopy", "--copy", "copy", "--size", "32"]
    assert main([*words, "--fit", "letterbox"]) == 2
    assert "--fit letterbox and --copy: the margin would become part of the images" in capsys.readouterr().err
    assert not Path("copy").exists()
    assert main([*words, "--fit", "crop", "--output", "table.csv"]) == 0
    assert "--data.size 32" in capsys.readouterr().out
