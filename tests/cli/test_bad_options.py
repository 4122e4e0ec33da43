"""Options out of their range: a sentence that names the option, exit code 2, nothing trained, no traceback."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ccd_lightning.cli import main
from ccd_lightning.data.synthetic import synthesize
from tests.runs import CONFIGS

DETECTOR = ["--model.encoder.weights=null"]
REFUSED = [
    ("padim", "data.num_workers=-1", "data.num_workers is -1"),
    ("padim", "data.batch_size=0", "data.batch_size is 0"),
    ("padim", "model.ridge=-1", "model.ridge is -1"),
    ("padim", "model.ridge=0", "model.ridge is 0"),
    ("padim", "model.encoder.name=", "model.encoder.name is empty"),
    ("padim", "trainer.accelerator=quantum", "trainer: "),
    ("padim", "trainer.accelerator=tpu", "trainer: "),
    ("padim", "trainer.devices=-5", "trainer: "),
    ("padim", "trainer.devices=x", "trainer: "),
    ("padim", "trainer.strategy=warp", "trainer: "),
    ("padim", "trainer.num_nodes=0", "trainer: "),
    ("padim", "data.cache_dir=set/train/good/0000.png", "set/train/good/0000.png: "),
    ("padim", "data.cache_dir=/proc/nowhere", "/proc/nowhere"),
    ("padim", "trainer.max_epochs=0", "trainer.max_epochs is 0"),
    ("ccd", "trainer.max_steps=0", "trainer.max_steps is 0"),
    ("ccd", "model.temperature=0", "model.temperature is 0"),
    ("ccd", "model.temperature=-1", "model.temperature is -1"),
    ("ccd", "model.optimizer.init_args.lr=-1", "model.optimizer: Invalid learning rate"),
    ("ccd", "model.optimizer.init_args.weight_decay=-1", "model.optimizer: Invalid weight_decay"),
    ("ccd", "data.views.patch_size=0", "patch_size must be 1 or more"),
    ("ccd", "data.views.size=0", "Views of 0 px"),
]
pytestmark = pytest.mark.fit


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bad")
    synthesize(place / "set", "colonoscopy", size=64, train=12, test_good=3, test_abnormal=3)
    return place


@pytest.fixture(autouse=True)
def _inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.mark.parametrize(("kind", "option", "expected"), REFUSED, ids=[option for _, option, _ in REFUSED])
def test_what_is_told(kind: str, option: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--config", str(CONFIGS / f"{kind}_folder.yaml"), "--data.root=set", "--data.size=64"]
    assert main([*words, *DETECTOR * (kind == "padim"), f"--{option}"]) == 2
    told = capsys.readouterr().err
    assert f"ccd: {expected}" in told
    assert "Traceback" not in told
    assert len(told.strip().splitlines()) < 15


@pytest.mark.parametrize("command", ["test", "validate", "predict", "fit"])
def test_an_empty_checkpoint_is_not_the_newest(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--ckpt_path", ""]) == 2
    assert "--ckpt_path is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "expected"), [(errno.ENOSPC, "Make room"), (errno.EACCES, "Give another place"), (errno.EROFS, "another")]
)
def test_a_disk_that_refuses_is_told_in_a_sentence(
    code: int, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "told by the system", "some/file")

    monkeypatch.setattr("ccd_lightning.cli.data.run_data", refuse)
    assert main(["data", "check"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("ccd: some/file: told by the system. ")
    assert expected in told
