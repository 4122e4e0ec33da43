from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from sklearn.metrics import roc_auc_score
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from ccd_lightning.data.datasets import Folder
from ccd_lightning.data.loading import ImageBatch, unit_range_batch
from ccd_lightning.encoder_config import TrainedEncoderConfig
from ccd_lightning.errors import UserError
from ccd_lightning.models.batchnorm import calibrate
from ccd_lightning.models.content import whole
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.modules.pretraining import EncoderPretraining
from ccd_lightning.modules.pseudo_lesions import PseudoLesions
from ccd_lightning.transforms.pretext import PretextViews
from ccd_lightning.transforms.strong import Identity

QUIET: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
PLAIN = pytest.mark.filterwarnings("ignore:.*(does not have many workers|have no `val_dataloader`)")
IMAGES = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def batch_of(images: torch.Tensor) -> ImageBatch:
    return ImageBatch(images, whole(len(images), images.shape[-2:], images.device))


class Flat(torch.nn.Module):
    """Takes the images for features."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images


class Drawn:
    """Training and held-out images, the latter also three times as far away, as an augmented version would be."""

    seed = 0
    tile = 0
    distributions: int | None = 2
    position_pairs: int | None = 4

    def __init__(self, factor: float) -> None:
        normal = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
        train, held_out = normal[:300], normal[300:]
        self.mean = torch.tensor([9.0] * 8)
        self.train, self.held_out = self.mean + train, torch.cat([self.mean + held_out, self.mean + factor * held_out])

    def normal_images(
        self, device: torch.device, rank: int = 0, ranks: int = 1, at_most: int | None = None
    ) -> tuple[Iterator[ImageBatch], Iterator[ImageBatch]]:
        return iter([batch_of(self.train)]), iter([])

    def held_out_distributions(self, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield self.held_out, torch.arange(2).repeat_interleave(100)


def attach(module: CCD, data: Drawn) -> None:
    module._trainer = SimpleNamespace(datamodule=data, global_rank=0, world_size=1)  # type: ignore[assignment]


@pytest.mark.parametrize(("factor", "low", "high"), [(1.0, 0.49, 0.51), (1.5, 0.7, 0.95), (6.0, 0.99, 1.0)])
def test_probe_tells_held_out_images_from_their_augmented_versions(factor: float, low: float, high: float) -> None:
    module, data = CCD(), Drawn(factor)
    module.encoder = Flat()  # type: ignore[assignment]
    attach(module, data)
    probed = module._probe_held_out(data)
    distances = module.probe(data.held_out).double().numpy()
    assert probed["auroc"] == pytest.approx(roc_auc_score(np.arange(200) >= 100, distances), abs=1e-6)
    assert low <= probed["auroc"] <= high
    logs = np.log(distances)
    assert probed["separation"] == pytest.approx(logs[100:].mean() - logs[:100].mean(), abs=1e-5)


def test_probe_logs_nothing_when_features_are_not_finite() -> None:
    module, data = CCD(), Drawn(2.0)
    data.train[3, 2] = float("nan")
    module.encoder = Flat()  # type: ignore[assignment]
    attach(module, data)
    assert module._probe_held_out(data) == {}
    with pytest.raises(UserError, match="training diverged"):
        module.on_test_start()


def test_batch_norm_sees_all_gpus() -> None:
    module, synced = CCD(), CCD()
    gpus = SimpleNamespace(world_size=2, strategy=SimpleNamespace(root_device=torch.device("cuda")))
    synced._trainer = gpus  # type: ignore[assignment]
    synced.setup("fit")
    norms = [part for part in synced.modules() if isinstance(part, _BatchNorm)]
    assert len(norms) == sum(isinstance(part, _BatchNorm) for part in module.modules()) > 10
    assert all(isinstance(norm, torch.nn.SyncBatchNorm) for norm in norms)
    assert synced.state_dict().keys() == module.state_dict().keys()


class Images(Drawn):
    """The same with images, some of which are held out."""

    def __init__(self) -> None:
        super().__init__(2.0)
        self.train, self.held_out = IMAGES[:5] / 255, IMAGES[5:] / 255

    def normal_images(self, *_: Any, **__: Any) -> tuple[Iterator[ImageBatch], Iterator[ImageBatch]]:
        return iter([batch_of(self.train)]), map(batch_of, torch.split(self.held_out, 2))


def test_one_distribution_leaves_pseudo_lesions_to_probe() -> None:
    module, data = CCD().eval(), Images()
    attach(module, data)
    module.encoder.features = lambda images: images.amax(dim=(2, 3)).square()  # type: ignore[method-assign]
    data.distributions = 1
    probed = module._probe_held_out(data)
    assert set(probed) == {"pseudo_auroc"}
    lesions = PseudoLesions()
    lesions.add(data.held_out)
    shown = torch.cat([images for images, _, _ in lesions.paste(data.seed)])
    distances = module.probe(module(torch.cat([data.held_out, shown]))).tolist()
    assert probed["pseudo_auroc"] == pytest.approx(roc_auc_score([0] * 3 + [1] * 24, distances), abs=1e-6)
    data.distributions = None
    assert module._probe_held_out(data) == probed


class Brightness(EncoderPretraining):
    """Another pretraining: it learns how bright a view is, without a head that draws random numbers."""

    def __init__(self) -> None:
        super().__init__(TrainedEncoderConfig(), {"brightness": 2.0}, torch.optim.Adam, 0, "step")

    def losses(self, batch: dict[str, torch.Tensor], across_ranks: bool = False) -> dict[str, torch.Tensor]:
        views = batch["views"].flatten(0, 2)
        error = self.encoder.features(views).mean(dim=1) - views.mean(dim=(1, 2, 3))
        return {"brightness": error.square().mean(), "bias": error.mean()}


@pytest.mark.fit
def test_a_new_pretraining_only_needs_its_losses(folder: Path) -> None:
    data = Folder(str(folder), size=64, batch_size=4, views=PretextViews(size=32, patch_size=16, pairs=0))
    module = Brightness()
    trainer = Trainer(accelerator="cpu", max_epochs=2, num_sanity_val_steps=0, use_distributed_sampler=False, **QUIET)
    trainer.fit(module, datamodule=data)
    logged = trainer.callback_metrics
    assert logged["val/loss"] == pytest.approx(2 * float(logged["val/brightness"]), rel=1e-6)
    assert {f"val/probe_{name}" for name in ("auroc", "separation", "pseudo_auroc")} | {
        "train/bias",
        "val/bias",
    } <= set(logged)
    expected = Encoder()
    expected.load_state_dict(module.encoder.state_dict())
    calibrate(expected, lambda: (images.pixels for images in data.normal_images(torch.device("cpu"))[0]))
    found = module.encoder.state_dict()
    assert all(torch.allclose(found[name], value, atol=1e-5) for name, value in expected.state_dict().items())
    (tested,) = trainer.test(module, datamodule=data, verbose=False)
    assert set(tested) == {"test/brightness", "test/bias"}


def loader(as_float: bool = False, views: PretextViews | None = None, **options: Any) -> DataLoader[Any]:
    """A plain loader of views, uint8 as they are drawn or in [0, 1], and of nothing else."""
    draw = views or PretextViews(size=32, patch_size=16, pairs=2)
    items = [draw(image, (0, 0, index)) for index, image in enumerate(IMAGES)]
    if as_float:
        items = [unit_range_batch(item) for item in items]
    return DataLoader(items, batch_size=4, **options)  # type: ignore[arg-type]


def fitted(train: DataLoader[Any], held_out: DataLoader[Any] | None = None, **options: Any) -> CCD:
    torch.manual_seed(0)
    module = CCD(warmup_steps=0, **options)
    Trainer(accelerator="cpu", max_epochs=2, num_sanity_val_steps=0, **QUIET).fit(module, train, held_out)
    return module


@pytest.mark.fit
@PLAIN
def test_a_plain_loader_is_enough_to_pretrain() -> None:
    module = fitted(loader(), loader())
    assert module.trainer.callback_metrics["train/loss"].isfinite()
    assert "val/loss" in module.trainer.callback_metrics
    assert "val/probe_auroc" not in module.trainer.callback_metrics
    same = fitted(loader(as_float=True), loader(as_float=True))
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in module.state_dict().items())
    before, images = module.encoder.state_dict(), IMAGES / 255
    assert before["network.bn1.num_batches_tracked"] == 2 * 2 * 2  # views and patches, of two batches, in two epochs
    expected = Encoder()
    expected.load_state_dict(before)
    calibrate(expected, lambda: iter([images]))
    module.calibrate(lambda: iter([images]))
    for name, value in expected.state_dict().items():
        assert torch.allclose(module.encoder.state_dict()[name], value, rtol=1e-4, atol=1e-4), name
    with pytest.raises(UserError, match=r"needs the normal images themselves.* give the trainer a data module"):
        Trainer(accelerator="cpu", **QUIET).test(module, loader())


@pytest.mark.fit
@PLAIN
@pytest.mark.parametrize(
    ("views", "options", "missing"),
    [
        (PretextViews(size=32, patch_size=16, pairs=0), {}, "no patches and no position"),
        (PretextViews(size=32, patch_size=16, augment_on="device"), {}, "no views"),
        (PretextViews(size=32, patch_size=16, pairs=0), {"position_weight": 0}, ""),
        (PretextViews(Identity(), 32, patch_size=16, pairs=0), {"position_weight": 0, "augmentation_weight": 0}, ""),
    ],
)
def test_keys_missing_from_a_batch_are_named(views: PretextViews, options: dict[str, Any], missing: str) -> None:
    if missing:
        with pytest.raises(UserError, match=f"A batch has {missing}: give --data.views"):
            fitted(loader(views=views), **options)
    else:
        fitted(loader(views=views), **options)


@pytest.mark.fit
@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
def test_images_that_are_not_square_are_learned_from(folder: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    views = PretextViews(Identity(), size=32, patch_size=16)
    data = Folder(str(folder), size=size, batch_size=4, views=views)
    trainer = Trainer(accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, num_sanity_val_steps=0, **QUIET)
    module = CCD()
    trainer.fit(module, datamodule=data)
    assert data.shown_sizes["data.size"] == size
    assert trainer.callback_metrics["val_loss"].isfinite()
    assert 0 <= trainer.callback_metrics["val/probe_pseudo_auroc"] <= 1
