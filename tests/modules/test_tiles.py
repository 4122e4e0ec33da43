"""Detectors on tiles of large images."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ccd_lightning.cli import main
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.tiles import Tiles
from ccd_lightning.errors import UserError
from ccd_lightning.models.content import pixels_within
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.modules.ensemble import Ensemble
from ccd_lightning.modules.igd import IGD
from ccd_lightning.modules.loading import load
from ccd_lightning.modules.mahalanobis import Mahalanobis
from ccd_lightning.modules.padim import PaDiM
from ccd_lightning.modules.statistics import StatisticsDetector
from tests.modules.local_features import MADE
from tests.runs import CONFIGS

CPU = torch.device("cpu")
TILES = Tiles(32, 8)


def large(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 80, 56, generator=torch.Generator().manual_seed(seed))


def fitted(detector: StatisticsDetector, content: Tensor | None = None) -> StatisticsDetector:
    detector.preprocessing = Preprocessing((80, 56), tiles=TILES)
    with torch.no_grad():
        for images, boxes in detector.fit_inputs({"image": large(6), "content": content}):
            assert images.shape[-2:] == (32, 32)
            detector.collect(images, boxes)
        detector.fit_statistics()
    return detector


@torch.no_grad()
@pytest.mark.parametrize("name", MADE)
def test_an_image_is_scored_by_the_highest_of_its_tiles(name: str) -> None:
    detector, test = fitted(MADE[name]()), large(2, seed=1)
    scores, maps = detector(test)
    assert maps.shape == (2, 80, 56)
    cut = [test[:, :, row : row + 32, column : column + 32] for row in (0, 24, 48) for column in (0, 24)]
    expected = torch.stack([detector.score(part)[0] for part in cut])
    assert torch.allclose(scores, expected.amax(dim=0), rtol=1e-5)
    detector.preprocessing = Preprocessing((80, 56), tiles=Tiles(32, 8, top=0.5))
    assert torch.allclose(detector(test)[0], expected.topk(3, dim=0).values.mean(dim=0), rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["padim", "neighbours", "mahalanobis"])
def test_a_spot_is_found_where_it_is_and_across_seams(name: str) -> None:
    detector = fitted(MADE[name]())
    for row, column in ((12, 10), (28, 28), (52, 40), (70, 4)):
        image = large(1, seed=1)
        image[:, :, row - 3 : row + 3, column - 3 : column + 3] += 2
        _, maps = detector(image)
        place = divmod(int(maps[0].argmax()), 56)
        assert abs(place[0] - row) <= 4
        assert abs(place[1] - column) <= 4


@torch.no_grad()
@pytest.mark.parametrize("name", ["padim", "neighbours", "mahalanobis"])
def test_margins_of_tiles_do_not_count(name: str) -> None:
    content = torch.tensor([[20, 0, 60, 56], [0, 0, 80, 56], [0, 12, 80, 44]]).repeat(2, 1)
    found = []
    for value in (0.0, 3.0):
        detector = MADE[name]()
        detector.preprocessing = Preprocessing((80, 56), tiles=TILES)
        inside = pixels_within(content, (80, 56))[:, None]
        for images, boxes in detector.fit_inputs({"image": torch.where(inside, large(6), value), "content": content}):
            detector.collect(images, boxes)
        detector.fit_statistics()
        found.append(detector(torch.where(inside, large(6, seed=1), 2 * value), content))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert not found[0][1][~pixels_within(content, (80, 56))].any()


def test_tiles_of_another_size_than_those_of_the_fit_are_refused() -> None:
    detector = fitted(MADE["mahalanobis"]())
    detector.preprocessing = Preprocessing((80, 56))
    with pytest.raises(UserError, match=r"56 x 80 px do not fit this detector: it was fitted to 32 x 32 px"):
        detector(large(1))
    detector.preprocessing = Preprocessing((80, 56), tiles=Tiles(48))
    with pytest.raises(UserError, match=r"fitted to 32 x 32 px. Give the --data.tiles of the fit"):
        detector(large(1))
    detector.preprocessing = Preprocessing((80, 56), tiles=TILES)
    with pytest.raises(UserError, match=r"Images of 24 px are smaller than a tile of 32 px"):
        detector(large(1)[:, :, :24])


def test_only_the_tiles_must_suit_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, checked = Mahalanobis(), list[Any]()
    monkeypatch.setattr(detector.encoder, "check_size", lambda *arguments: checked.append(arguments))
    detector.check_images(Preprocessing((1000, 2000), tiles=Tiles(256)), CPU, 1)
    detector.check_images(Preprocessing((96, 160)), CPU, 1)
    assert checked == [((256, 256), "data.tiles.side"), ((96, 160), "data.size")]


def test_memory_is_estimated_from_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccd_lightning.modules.padim.available_memory", lambda: 1e9)
    detector = PaDiM(channels=50)
    detector.check_images(Preprocessing(4096, tiles=Tiles(256)), CPU, 1)
    with pytest.raises(UserError, match="PaDiM of 50 channels on images of 4096 px"):
        detector.check_images(Preprocessing(4096), CPU, 1)


def test_models_that_take_no_tiles_refuse_them() -> None:
    with pytest.raises(UserError, match=r"IGD does not learn from tiles: leave out data\.tiles"):
        IGD().check_images(Preprocessing(512, tiles=2), CPU, 1)
    with pytest.raises(UserError, match=r"Pretraining takes whole images: leave out data\.tiles"):
        CCD().check_images(Preprocessing(512, tiles=2))
    with pytest.raises(UserError, match=r"Images of 96 x 160 px do not fit IGD, .* --data\.fit letterbox"):
        IGD().check_images(Preprocessing((96, 160)), CPU, 1)


@torch.no_grad()
def test_members_of_an_ensemble_put_their_own_tiles_together() -> None:
    ensemble, test = Ensemble(("a", "b")), large(3, seed=1)
    members = [fitted(MADE[name]()) for name in ("mahalanobis", "neighbours")]
    parts = []
    for member in members:
        scores, maps = member(large(6, seed=2))
        member.normal_scores, member.map_limits = scores.sort().values, torch.stack([maps.median(), maps.max()])
        low, high = member.map_limits
        parts.append((member(test)[1] - low).clamp(min=0) / (high - low))
        ensemble.members.append(member)
    ensemble.preprocessing = members[0].preprocessing
    assert torch.allclose(ensemble(test)[1], torch.stack(parts).mean(dim=0), atol=1e-6)


@pytest.mark.fit
def test_a_fit_with_tiles_is_tested_loaded_and_predicts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").symlink_to(CONFIGS)
    monkeypatch.chdir(tmp_path)
    options = ["--data.size=[96, 128]", "--data.tiles.side=64", "--data.fit=letterbox", "--model.encoder.weights=null"]
    words = ["fit", "--config", "configs/mahalanobis_folder.yaml", f"--data.root={folder}", "--data.batch_size=4"]
    assert main([*words, *options]) == 0
    assert main(["test"]) == 0
    detector = load("runs/mahalanobis_folder")
    assert detector.tiles == Tiles(64)
    assert isinstance(detector, StatisticsDetector)
    assert detector._image_size == (64, 64)
    files = sorted(map(str, folder.rglob("test/*/*.png")))[:3]
    with pytest.raises(
        UserError, match=r"letterboxed images, and needs to know their margins: call detector\.score_files"
    ):
        detector.read(*files)
    scores, maps = detector.score_files(*files)
    assert maps.shape == (3, 96, 128)
    assert not maps[:, :, :16].any()  # square images of 96 px, in the middle of 128
    assert not maps[:, :, 112:].any()
    images = detector.read_placed(*files)
    assert images.content.tolist() == [[0, 16, 96, 112]] * 3
    assert torch.allclose(detector(*images)[0], scores, rtol=1e-5)  # with gradients, sums are made in another order
    assert main(["predict", "--images", *files, "--output", "out"]) == 0
    with Path("out/predictions.csv").open() as file:
        found = [float(row["score"]) for row in csv.DictReader(file)]
    assert found == pytest.approx(scores.tolist(), rel=1e-4)
