"""A detector is its statistics: here all training images' mean colours, with the distance to the nearest as score."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ccd_lightning.data.datasets import Folder
from ccd_lightning.distributed import gather_rows
from ccd_lightning.encoder_config import EncoderConfig
from ccd_lightning.models.fitted import FittedModule
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.modules.loading import load
from ccd_lightning.modules.padim import PaDiM
from ccd_lightning.modules.statistics import StatisticsDetector
from tests.processes import RANKS, run
from tests.runs import DATA

pytestmark = pytest.mark.filterwarnings("ignore:.*(will run with no optimizer|have no `val_dataloader`)")
QUIET: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
QUIET |= {"num_sanity_val_steps": 0, "max_epochs": 1}


class Colours(FittedModule):
    """A memory bank, of as many rows as there were images."""

    rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.empty(0, 3))


class NearestColour(StatisticsDetector):
    """The simplest detector with a memory whose size nobody knows before."""

    def __init__(self, encoder: EncoderConfig = EncoderConfig(), quantile: float = 0.9) -> None:
        super().__init__(encoder, quantile)
        self.save_hyperparameters(ignore=["encoder"])
        self.bank = Colours()
        self.collected: list[Tensor] = []
        self.fits = 0

    def collect(self, images: Tensor, content: Tensor | None = None) -> None:
        assert not torch.is_grad_enabled()
        assert not self.encoder.training
        self.collected.append(images.mean(dim=(2, 3)))

    def merge_ranks(self) -> None:
        self.collected = [gather_rows(torch.cat(self.collected))]

    def fit_statistics(self) -> None:
        rows = torch.cat(self.collected)
        self.bank.rows = rows[rows[:, 0].argsort()]
        self.collected, self.fits = [], self.fits + 1

    def score(self, images: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scores = torch.cdist(images.mean(dim=(2, 3)), self.bank.rows).amin(dim=1)
        return scores, scores[:, None, None].expand(-1, *images.shape[-2:])


def fit(folder: Path, place: Path, **options: Any) -> NearestColour:
    torch.manual_seed(0)
    data = Folder(str(folder), size=64, batch_size=4)
    trainer = Trainer(accelerator="cpu", use_distributed_sampler=False, default_root_dir=place, **QUIET | options)
    module = NearestColour()
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(place / "detector.ckpt")
    return module


def named(checkpoint: Path) -> Path:
    """The checkpoint with the class that the command line would have named in it."""
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["_class_path"] = f"{__name__}.NearestColour"
    torch.save(content, checkpoint)
    return checkpoint


@pytest.mark.fit
def test_a_new_detector_is_fitted_in_one_pass_saved_and_loaded(folder: Path, tmp_path: Path) -> None:
    module = fit(folder, tmp_path)
    data = module.trainer.datamodule  # type: ignore[attr-defined]
    colours = torch.cat([images.mean(dim=(2, 3)) for images, _ in data.normal_images(torch.device("cpu"))[0]])
    assert torch.allclose(module.bank.rows, colours[colours[:, 0].argsort()], atol=1e-6)
    assert module.fits == 1
    assert module.trainer.global_step == 3  # is counted, so that a checkpoint is written
    assert not module.threshold.isnan()
    loaded = load(named(tmp_path / "detector.ckpt"))
    assert isinstance(loaded, NearestColour)
    images = torch.rand(3, 3, 64, 64)
    assert torch.equal(loaded(images)[0], module.eval()(images)[0])
    assert torch.equal(loaded.threshold, module.threshold)


@pytest.mark.fit
@pytest.mark.parametrize("epochs", [1, 3])
def test_without_validation_it_is_fitted_at_the_end_of_each_epoch(folder: Path, tmp_path: Path, epochs: int) -> None:
    module = fit(folder, tmp_path, limit_val_batches=0, max_epochs=epochs)
    assert module.fits == epochs
    assert len(module.bank.rows) == 10  # of 12 images, 2 of which are held out; each epoch begins anew
    assert module.threshold.isnan()


@pytest.mark.fit
def test_an_epoch_after_the_first_begins_anew(folder: Path, tmp_path: Path) -> None:
    once, twice = (fit(folder, tmp_path, max_epochs=epochs) for epochs in (1, 2))
    assert twice.fits == 2
    assert torch.allclose(once.bank.rows, twice.bank.rows, atol=1e-7)


def test_detectors_are_at_most_three_classes_deep() -> None:
    assert PaDiM.__mro__[:3] == (PaDiM, StatisticsDetector, OneClassDetector)


@pytest.mark.fit
@pytest.mark.process
def test_two_ranks_collect_what_one_collects(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(Path(__file__).parents[2] / "configs")
    rows = []
    for ranks in ([], RANKS):
        name = f"ranks{len(ranks)}"
        words = ["fit", "--config", "configs/padim_synthetic.yaml", f"--model={__name__}.NearestColour", *DATA]
        words += ["--model.encoder.weights=null", "--data.batch_size=3", f"--trainer.logger.init_args.name={name}"]
        run(*words, *ranks, place=tmp_path)
        (file,) = (tmp_path / "runs" / name / "version_0/checkpoints").glob("*.ckpt")
        rows.append(torch.load(file, weights_only=True)["state_dict"])
    assert len(rows[0]["bank.rows"]) > 5
    for name in ("bank.rows", "threshold", "normal_scores"):
        assert torch.allclose(rows[0][name], rows[1][name], atol=1e-7), name
