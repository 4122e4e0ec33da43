"""Fitted detectors as one, through the command line."""

import shutil
from pathlib import Path

import pytest
import torch

from ccd_lightning import load
from ccd_lightning.checkpoints import read_checkpoint
from ccd_lightning.cli import main
from ccd_lightning.errors import UserError
from ccd_lightning.models.rank_scores import rank_scores
from ccd_lightning.modules.ensemble import MEMBERS, Ensemble
from tests.runs import DATA

MEMBER = ["fit", "--config", "padim_synthetic", *DATA, "--model.encoder.weights=null"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two members and their ensemble."""
    folder = tmp_path_factory.mktemp("ensemble")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*MEMBER, "--model.channels=10"]) == 0
        assert main([*MEMBER, "--model=Mahalanobis", "--trainer.logger.init_args.name=mahalanobis"]) == 0
        assert main(ensemble("[runs/padim_synthetic, runs/mahalanobis]")) == 0
    return folder


def ensemble(members: str, *words: str) -> list[str]:
    options = ["--data.root=data/synthetic_colonoscopy", "--data.size=64", f"--model.detectors={members}"]
    return ["fit", "--config", "ensemble_folder", *options, "--trainer.logger.init_args.name=ensemble", *words]


@pytest.mark.fit
@torch.no_grad()
def test_its_score_is_the_mean_rank_of_its_members(place: Path) -> None:
    together = load(place / "runs/ensemble")
    members = [load(place / "runs" / name) for name in ("padim_synthetic", "mahalanobis")]
    assert together.preprocessing is not None
    size = together.preprocessing.shape
    images = torch.rand(3, 3, *size)
    scores, maps = together(images)
    ranks = [rank_scores(member(images)[0], member.normal_scores) for member in members]
    assert torch.allclose(scores, torch.stack(ranks).mean(dim=0), rtol=1e-4)
    assert maps.shape == (3, *size)
    assert (maps >= 0).all()
    assert len(together.normal_scores) == len(members[0].normal_scores)  # the same images are held out
    assert 0.5 < float(together.threshold) < 2


@pytest.mark.fit
def test_its_checkpoint_needs_no_other_file(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(place, tmp_path / "moved", symlinks=True)
    monkeypatch.chdir(tmp_path / "moved")
    shutil.rmtree("runs/padim_synthetic")
    shutil.rmtree("runs/mahalanobis")
    assert main(["test", "--ckpt_path", "runs/ensemble"]) == 0
    assert Path("runs/ensemble/version_0/metrics.json").is_file()
    assert Path("runs/ensemble/version_0/report.html").is_file()


@pytest.mark.fit
@pytest.mark.export
def test_an_exported_ensemble_scores_as_the_ensemble_does(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert main(["export", "--ckpt_path", "runs/ensemble"]) == 0  # which compares scores and maps with torch's


@pytest.mark.fit
@pytest.mark.parametrize(
    ("members", "words", "message"),
    [
        ("[runs/padim_synthetic]", [], "names fewer than two runs"),
        ("[runs/padim_synthetic, runs/none]", [], "runs/none"),
        ("[runs/padim_synthetic, runs/mahalanobis]", ["--data.size=96"], "but data.size is 96"),
        ("[runs/padim_synthetic, runs/mahalanobis]", ["--data.crop=[0,0,1,0.5]"], "was fitted with data.crop None"),
        ("[runs/padim_synthetic, runs/mahalanobis]", ["--data.window=[0,9]"], "was fitted with data.window None"),
    ],
)
def test_members_that_cannot_be_combined_are_refused(
    members: str,
    words: list[str],
    message: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    assert main(ensemble(members, *words)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.fit
def test_a_member_of_an_unknown_class_is_refused(place: Path) -> None:
    checkpoint = read_checkpoint(next((place / "runs/ensemble/version_0/checkpoints").glob("*.ckpt")))
    checkpoint[MEMBERS][0]["class_path"] = "subprocess.Popen"
    with pytest.raises(UserError, match=r"names the class subprocess\.Popen"):
        Ensemble().on_load_checkpoint(checkpoint)
