"""Two processes learn what one process learns from the same images; real processes, talking through gloo.

Batch normalisation is frozen, because nn.SyncBatchNorm, which makes it see all images, is for GPUs only.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn.modules.batchnorm import _BatchNorm

from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.loading import ImageBatch
from ccd_lightning.data.synthetic import synthesize
from ccd_lightning.encoder_config import TrainedEncoderConfig
from ccd_lightning.models.batchnorm import calibrate
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.igd.settings import Scale, Training, WindowScale
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.modules.igd import IGD
from ccd_lightning.modules.pmsacl import PMSACL
from ccd_lightning.transforms.medmix import MedMix
from ccd_lightning.transforms.pretext import PretextViews
from ccd_lightning.transforms.strong import Identity

STEPS = 10


class Double(AnomalyDataModule):
    """Gives float64: in float32 rounding alone grows to 1e-3 within some steps."""

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        return {
            name: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
            for name, value in batch.items()
        }

    def normal_images(
        self, device: torch.device, rank: int = 0, ranks: int = 1, at_most: int | None = None
    ) -> tuple[Iterator[ImageBatch], Iterator[ImageBatch]]:
        train, held_out = super().normal_images(device, rank, ranks, at_most)
        return map(doubled, train), map(doubled, held_out)


def doubled(images: ImageBatch) -> ImageBatch:
    return ImageBatch(images.pixels.double(), images.content)


def pixels(batches: Iterator[ImageBatch]) -> Iterator[torch.Tensor]:
    return (batch.pixels for batch in batches)


class Frozen(CCD):
    """Normalises by fixed statistics."""

    def train(self, mode: bool = True) -> "Frozen":
        super().train(mode)
        for part in self.modules():
            if isinstance(part, _BatchNorm):
                part.eval()
        return self


def joined(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


class Keep(Callback):
    """Writes down the losses, the first gradient and the last parameters."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.kept: dict[str, Any] = {"losses": []}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.kept["before"] = joined(list(pl_module.parameters()))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        self.kept.setdefault("gradient", joined(gradients))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.kept["losses"].append(float(trainer.callback_metrics["train/loss"]))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.kept["after"] = joined(list(pl_module.parameters()))
        self.kept["buffers"] = joined([buffer for buffer in pl_module.buffers() if buffer.is_floating_point()])
        if trainer.is_global_zero:
            torch.save(self.kept, self.file)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-2, momentum=0.9)


class FrozenPMSACL(PMSACL):
    """The same, whose centres are not computed by the statistics of each batch either."""

    def train(self, mode: bool = True) -> "FrozenPMSACL":
        super().train(mode)
        for part in self._kept_norms():
            part.eval()
        return self

    def _kept_norms(self) -> set[torch.nn.Module]:
        return {part for part in self.modules() if isinstance(part, _BatchNorm)}


def pmsacl(data: AnomalyDataModule) -> LightningModule:
    """With centres of all ranks' images."""
    data.views = PretextViews(MedMix(), size=16, patch_size=8, pairs=2)
    module: CCD = FrozenPMSACL(alpha=2.0, optimizer=sgd, warmup_steps=0).double().train()
    calibrate(module.encoder, lambda: pixels(data.normal_images(torch.device("cpu"))[0]))
    return module


def pretraining(data: AnomalyDataModule) -> LightningModule:
    module = Frozen(optimizer=sgd, warmup_steps=0).double().train()
    calibrate(module.encoder, lambda: pixels(data.normal_images(torch.device("cpu"))[0]))
    return module


class Calibrated(Frozen):
    """Calibrates and probes before the first step, which validation would have it do."""

    def on_train_start(self) -> None:
        self.on_validation_epoch_start()
        assert self._fit_probe()
        distances = self.probe(self(next(self._data.normal_images(self.device)[1]).pixels))
        self.register_buffer("distances", distances)


def calibrated(data: AnomalyDataModule) -> LightningModule:
    return Calibrated(optimizer=sgd, warmup_steps=0).double().train()


def simclr(data: AnomalyDataModule) -> LightningModule:
    """Without the tasks, whose heads get no gradient: a process must not wait for it."""
    data.views = PretextViews(Identity(), size=16, pairs=0)
    module = (
        Frozen(distributions=1, augmentation_weight=0, position_weight=0, optimizer=sgd, warmup_steps=0)
        .double()
        .train()
    )
    calibrate(module.encoder, lambda: pixels(data.normal_images(torch.device("cpu"))[0]))
    return module


def fine_tuned(data: AnomalyDataModule) -> LightningModule:
    """From weights, of which a part stays, and the rest learns at a rate of its own."""
    torch.manual_seed(1)
    encoder = Encoder().double()
    calibrate(encoder, lambda: pixels(data.normal_images(torch.device("cpu"))[0]))
    file = data.root.parent / "weights.ckpt"
    torch.save({"state_dict": {f"encoder.{name}": value for name, value in encoder.state_dict().items()}}, file)
    config = TrainedEncoderConfig(weights=str(file), freeze=2, lr_scale=0.5, batch_norm="keep", l2_sp=0.3)
    torch.manual_seed(0)
    return Frozen(config, optimizer=sgd, warmup_steps=0).double().train()


def igd(data: AnomalyDataModule) -> LightningModule:
    """Fine-tuned, and with centre and scale estimated within the steps."""
    scales = {"global_scale": Scale(64, 8), "local_scale": WindowScale(32, 8, windows_per_image=2)}
    training = Training(estimate_every=2, fine_tune=True)
    return IGD(**scales, latent_size=16, training=training, optimizer=sgd).double()  # type: ignore[arg-type]


def whitened(data: AnomalyDataModule) -> LightningModule:
    """On principal components; more of them than there are images."""
    scales = {"global_scale": Scale(64, 8), "local_scale": WindowScale(32, 8, windows_per_image=2)}
    return IGD(**scales, latent_size=16, whitened=True, optimizer=sgd).double()  # type: ignore[arg-type]


def fit(folder: Path, ranks: int, make: Callable[[AnomalyDataModule], LightningModule]) -> dict[str, Any]:
    views = PretextViews(size=16, patch_size=8, pairs=2)
    data = Double(str(folder / "images"), size=64, batch_size=6 // ranks, views=views)  # 11 images: uneven
    data.setup("fit")
    torch.set_num_threads(1)  # as many as each of the two processes takes
    torch.manual_seed(0)
    module = make(data)
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp_spawn" if ranks > 1 else "auto",
        max_steps=STEPS,
        limit_val_batches=0,
        use_distributed_sampler=False,
        callbacks=[Keep(folder / f"{ranks}.pt")],
        **quiet,
    )
    trainer.fit(module, datamodule=data)
    kept: dict[str, Any] = torch.load(folder / f"{ranks}.pt")
    return kept


@pytest.mark.fit
@pytest.mark.process
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [pretraining, calibrated, simclr, fine_tuned, pmsacl, igd, whitened])
def test_two_ranks_learn_what_one_learns(
    make: Callable[[AnomalyDataModule], LightningModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for each of the two, which otherwise wait for each other's threads
    synthesize(tmp_path / "images", "colonoscopy", size=64, train=14, test_good=1, test_abnormal=3)
    one, two = fit(tmp_path, 1, make), fit(tmp_path, 2, make)
    assert len(one["losses"]) == STEPS
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-6)  # are logged in float32
    assert torch.allclose(two["gradient"], one["gradient"], rtol=1e-9, atol=1e-12)
    assert (one["after"] - one["before"]).abs().max() > 0.01  # it learned something
    assert torch.allclose(two["after"], one["after"], rtol=0, atol=1e-9)
    assert torch.allclose(two["buffers"], one["buffers"], rtol=1e-9, atol=1e-9, equal_nan=True)  # no threshold yet
