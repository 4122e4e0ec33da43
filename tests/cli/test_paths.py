"""Paths that users have: with spaces, in the home folder, and seen from another folder."""

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from ccd_lightning.cli import main
from ccd_lightning.cli.relocation import relocate
from ccd_lightning.commands import command, expand
from ccd_lightning.data.datasets import Folder
from ccd_lightning.data.image_files import find_files
from ccd_lightning.encoder_config import EncoderConfig, initialise_encoder
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.runs import find_checkpoint, how_to_resume
from tests.runs import CONFIGS, VIEWS, metrics

AWKWARD = "N x ü's $(1)"


@pytest.mark.parametrize("word", [AWKWARD, "a b", 'say "x"', "*.png", "~/A", "a;b", "[0.1, 0.9]"])
def test_printed_commands_survive_the_shell(word: str) -> None:
    assert shlex.split(command("fit", "--data.root", word)) == ["ccd", "fit", "--data.root", word]
    message = how_to_resume(word).removeprefix("Resume with: ")
    assert shlex.split(message)[2:] == ["--config", f"{word}/config.yaml", "--ckpt_path", word]


@pytest.mark.fit
def test_the_next_command_can_be_pasted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder.parent)
    folder.rename(AWKWARD)
    Path("configs").symlink_to(CONFIGS)
    small = ["--data.size=64", *VIEWS, "--trainer.max_epochs=1", "--data.num_workers=0"]
    assert main(["fit", "--config", "configs/ccd_folder.yaml", "--data.root", AWKWARD, *small]) == 0
    following = capsys.readouterr().out.rpartition("Next: ")[2]
    words = shlex.split(following)
    assert words[words.index("--data.root") + 1] == AWKWARD
    assert main(words[1:]) == 0


def test_the_home_folder_is_found_by_every_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    data = Folder("~/images", cache_dir="~/cache")
    assert data.root == folder
    assert data.cache_dir == folder.parent / "cache"
    data.manifest()
    assert find_files(["~/images/train/good"])
    checkpoint = folder.parent / "mine.ckpt"
    checkpoint.touch()
    assert find_checkpoint(Path("~/mine.ckpt")) == checkpoint
    assert expand("~nobody-of-that-name/x") == Path("~nobody-of-that-name/x")
    with pytest.raises(Exception, match=str(checkpoint)):  # found, and empty
        initialise_encoder(Encoder(), EncoderConfig(weights="~/mine.ckpt"))


def test_data_commands_know_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.chdir(folder)
    assert main(["data", "prepare", "--root=~/images", "--output=~/split.csv"]) == 0
    assert main(["data", "prepare", "--root=~/images", "--layout=~/split.csv", "--output=~/again.csv"]) == 0
    assert (folder.parent / "again.csv").read_text() == (folder.parent / "split.csv").read_text()


def test_a_run_is_tested_from_another_folder(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = workspace / "runs/padim_synthetic/version_0"
    before = metrics(run)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (run / "metrics.json").unlink()
    assert main(["test", "--ckpt_path", str(run)]) == 0
    assert f"data.root: {before['data']['root']}" not in capsys.readouterr().out
    assert metrics(run)["metrics"] == before["metrics"]
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("known", [True, False])
def test_data_is_looked_for_here_and_then_where_the_fit_was(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "project/runs/padim/version_0"
    run.mkdir(parents=True)
    origin = str(tmp_path / "gone" if not known else tmp_path / "project")
    (tmp_path / "project/images").mkdir()
    (tmp_path / "project/split.csv").touch()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def settings(*given: str) -> dict[str, str | None]:
        config = {"data": {"init_args": {"root": "images", "layout": "split.csv", "cache_dir": None}}}
        relocate(config, run, origin if known else None, given)
        found: dict[str, str | None] = config["data"]["init_args"]
        return found

    found = {name: str(tmp_path / "project" / name) for name in ("images", "split.csv")}
    assert settings() == {"root": found["images"], "layout": found["split.csv"], "cache_dir": None}
    assert settings("--data.root")["root"] == "images"
    Path("images").mkdir()
    assert settings() == {"root": "images", "layout": found["split.csv"], "cache_dir": None}
    shutil.rmtree(tmp_path / "project/images")
    Path("images").rmdir()
    assert settings()["root"] == "images"


@pytest.mark.parametrize("seed", ["true", "false", "-1", "4294967296", "x"])
def test_a_wrong_seed_is_named(seed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--seed_everything", seed, "--data.root", str(tmp_path)]
    assert main(["fit", "--config", str(CONFIGS / "padim_folder.yaml"), *words]) == 2
    message = capsys.readouterr().err
    assert "seed_everything" in message
    assert "data.seed" not in message
    assert "Traceback" not in message


def test_a_layouts_name_is_no_path(tmp_path: Path) -> None:
    (tmp_path / "lag").mkdir()
    config: dict[str, Any] = {"data": {"init_args": {"root": "lag", "layout": "lag"}}}
    relocate(config, tmp_path / "runs/x/version_0", str(tmp_path), ())
    assert config["data"]["init_args"] == {"root": str(tmp_path / "lag"), "layout": "lag"}
