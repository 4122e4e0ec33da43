"""Detectors that compare an encoder's features with those of normal images: what they have in common."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ccd_lightning.encoder_config import EncoderConfig
from ccd_lightning.errors import UserError
from ccd_lightning.models.patch_features import FeatureConfig
from ccd_lightning.modules.loading import load
from ccd_lightning.modules.mahalanobis import Mahalanobis
from ccd_lightning.modules.neighbours import Neighbours
from ccd_lightning.modules.padim import PaDiM
from ccd_lightning.modules.statistics import StatisticsDetector
from tests.modules.test_localisation import mirror_kernels
from tests.processes import RANKS, run
from tests.runs import DATA

FEWER = EncoderConfig()  # the tests' own small network

MADE: dict[str, Any] = {
    "padim": lambda: PaDiM(FEWER, FeatureConfig(window=3, normalise=True), channels=20, top=0.01, shrinkage=True),
    "neighbours": lambda: Neighbours(FEWER),
    "neighbours anywhere": lambda: Neighbours(FEWER, window=None, reweight=3),
    "neighbours, coreset": lambda: Neighbours(FEWER, bank_size=512),
    "neighbours, pooled": lambda: Neighbours(FEWER, pooled=True),
    "mahalanobis": lambda: Mahalanobis(FEWER),
}


def normal(count: int, size: int = 64) -> Tensor:
    return 0.4 + 0.02 * torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def fitted(detector: StatisticsDetector, images: Tensor | None = None) -> StatisticsDetector:
    detector.eval()
    with torch.no_grad():
        for batch in torch.split(normal(24) if images is None else images, 8):
            detector.collect(batch)
        detector.fit_statistics()
    return detector


@pytest.fixture(params=MADE)
def detector(request: pytest.FixtureRequest) -> StatisticsDetector:
    torch.manual_seed(0)
    return fitted(MADE[request.param]())


def with_spot(images: Tensor) -> Tensor:
    images = images.clone()
    images[:, 0, 40:52, 8:20] += 0.5
    return images


@torch.no_grad()
def test_a_spot_is_found_and_outlined(detector: StatisticsDetector) -> None:
    images = normal(30)[24:]
    before, after = detector(images), detector(with_spot(images))
    assert (after[0] > before[0].max()).all()
    rise = after[1] - before[1]
    inside, outside = rise[:, 36:56, 4:24].mean(dim=(1, 2)), rise[:, :28].mean(dim=(1, 2))
    assert (inside > 2 * outside.abs()).all()
    assert after[1].shape == (6, 64, 64)
    assert (after[1] >= 0).all()


@torch.no_grad()
@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("size", [(96, 160), (160, 96)])
def test_a_spot_is_found_in_images_that_are_not_square(name: str, size: tuple[int, int]) -> None:
    images = 0.4 + 0.02 * torch.randn(30, 3, *size, generator=torch.Generator().manual_seed(0))
    detector = MADE[name]()
    mirror_kernels(detector.encoder)  # random ones look to one side
    fitted(detector, images[:24])
    for row, column in ((24, 24), (size[0] - 24, size[1] - 24), (size[0] // 2, size[1] // 2)):
        spotted = images[24:].clone()
        spotted[:, :, row - 6 : row + 6, column - 6 : column + 6] += 0.5
        before, after = detector(images[24:]), detector(spotted)
        assert (after[0] > before[0].max()).all()
        rise = (after[1] - before[1]).mean(dim=0)
        assert rise.shape == size
        place = divmod(int(rise.argmax()), size[1])
        assert abs(place[0] - row) <= 4
        assert abs(place[1] - column) <= 4


@torch.no_grad()
def test_scores_do_not_depend_on_the_batch(detector: StatisticsDetector) -> None:
    images = with_spot(normal(3))
    scores, maps = detector(images)
    alone = [detector(image[None]) for image in images]
    assert torch.allclose(scores, torch.cat([score for score, _ in alone]), rtol=1e-3)
    assert torch.allclose(maps, torch.cat([one for _, one in alone]), rtol=1e-3, atol=1e-3)


def test_another_size_than_that_of_the_fit_is_refused(detector: StatisticsDetector) -> None:
    with pytest.raises(UserError, match=r"Images of 96 x 96 px do not fit this detector: it was fitted to 64 x 64 px"):
        detector(normal(1, 96))


def test_the_size_is_in_the_checkpoint(detector: StatisticsDetector) -> None:
    checkpoint: dict[str, Any] = {"state_dict": detector.state_dict()}
    detector.on_save_checkpoint(checkpoint)
    detector._image_size = None
    detector.on_load_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"it was fitted to 64 x 64 px. Give the --data\.size"):
        detector(normal(1, 96))


@torch.no_grad()
def test_the_map_of_mahalanobis_adds_up_to_its_score() -> None:
    torch.manual_seed(0)
    detector = fitted(Mahalanobis(FEWER, blur=0))
    assert isinstance(detector, Mahalanobis)
    images = with_spot(normal(2))
    features = detector.features(images)
    whitened = detector.gaussian.whiten(features.mean(dim=(2, 3))[:, :, None])[0]
    direction = torch.nn.functional.normalize(whitened) @ detector.gaussian.whitening[0]
    added = detector.positions.contributions(features, direction)
    assert torch.allclose(added.mean(dim=(1, 2)), detector(images)[0], rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "key"),
    [({"window": -1}, "window"), ({"bank_size": 0}, "bank_size"), ({"reweight": -1}, "reweight"), ({"top": 2}, "top")],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"model\.{key} is"):
        Neighbours(**options)


def test_a_bank_that_does_not_fit_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccd_lightning.modules.neighbours.available_memory", lambda: 1e6)
    with pytest.raises(UserError, match=r"A bank of 50000 features .* Choose a smaller --model\.bank_size"):
        Neighbours().check_memory((128, 128), torch.device("cpu"), 1)
    Neighbours(bank_size=10).check_memory((128, 128), torch.device("cpu"), 1)


LETTERBOX = ["--data.fit=letterbox", "--data.size=[64, 96]"]
OPTIONS = {
    "neighbours": ["--model=Neighbours"],
    "neighbours pooled": ["--model=Neighbours", "--model.pooled=true"],
    "mahalanobis": ["--model=Mahalanobis"],
    "padim shrunk": ["--model=PaDiM", "--model.shrinkage=true", "--model.channels=10"],
    "padim, letterbox": ["--model=PaDiM", "--model.channels=10", *LETTERBOX],
    "neighbours, letterbox and tiles": ["--model=Neighbours", *LETTERBOX, "--data.tiles=2"],
}


@pytest.mark.fit
@pytest.mark.process
@pytest.mark.parametrize("name", OPTIONS)
def test_two_ranks_fit_what_one_fits(name: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(Path(__file__).parents[2] / "configs")
    found = []
    for ranks in ([], RANKS):
        place = f"ranks{len(ranks)}"
        data = ["--config", "configs/padim_synthetic.yaml", *OPTIONS[name], *DATA]
        if LETTERBOX[0] in OPTIONS[name]:
            data = ["--config", "configs/mahalanobis_folder.yaml", *OPTIONS[name], f"--data.root={folder}"]
        words = ["fit", *data]
        words += ["--model.encoder.weights=null", "--data.batch_size=3", f"--trainer.logger.init_args.name={place}"]
        run(*words, *ranks, place=tmp_path)
        found.append(load(tmp_path / "runs" / place))
    images = torch.rand(4, 3, *found[0].preprocessing.shape)  # type: ignore[union-attr]
    content = torch.tensor([[0, 16, 64, 80]]).expand(4, -1) if LETTERBOX[0] in OPTIONS[name] else None
    one, two = (detector(images, content) for detector in found)
    assert torch.allclose(one[0], two[0], rtol=1e-4)
    assert torch.allclose(one[1], two[1], rtol=1e-3, atol=1e-4)
    assert torch.allclose(found[0].threshold, found[1].threshold, rtol=1e-4)
