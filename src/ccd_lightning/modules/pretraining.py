"""What every pretraining of an encoder shares; what it learns from is up to its losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from ccd_lightning.data.loading import unit_range_batch
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.distributed import gather_ranks
from ccd_lightning.encoder_config import TrainedEncoderConfig, build_encoder, initialise_encoder
from ccd_lightning.errors import UserError
from ccd_lightning.models.batchnorm import batch_statistics, calibrate, synchronise
from ccd_lightning.models.means import Batches, weighted_means
from ccd_lightning.models.probe import FeatureProbe
from ccd_lightning.modules.finetuning import StartingPoint, frozen_parts, kept_norms, limit_training, make_optimizer
from ccd_lightning.modules.finite_scores import require_numbers
from ccd_lightning.modules.normal_images import NormalImages, find_normal_images, require_normal_images
from ccd_lightning.modules.probing import probe_held_out
from ccd_lightning.modules.schedule import check_optimizer, warmup_cosine
from ccd_lightning.ranges import at_least
from ccd_lightning.transforms.patches import tiles

CALIBRATED = 256  # images: means and variances of all of their pixels are known well, and each norm takes a pass


class EncoderPretraining(LightningModule, ABC):
    """Trains an encoder on normal images; a subclass adds heads, and the losses that these and the encoder learn.

    With a data module that gives normal images (`NormalImages`), every validation calibrates the encoder's batch norm
    on training images and probes its features, and the encoder can be tested. Without one, in
    `Trainer.fit(module, DataLoader(...))`, neither is done: batch norm keeps the running statistics of the views. Then
    call `calibrate` after the fit, with whole images, which are what detectors show the encoder.

    Args:
        encoder: The encoder's initial weights, and how they are fine-tuned.
        weights: The weight of each loss that is minimised, by its name.
        optimizer: Creates the optimiser from the parameters.
        warmup_steps: Optimiser steps over which the learning rate rises. Without warm-up, random weights may collapse.
        schedule: Whether the cosine schedule is updated every "step" or, as published, every "epoch".

    Attributes:
        probe: A Gaussian of the training images' features, fitted when it is needed.
        normal_scores: Distances from it of the held-out images, (N,), once a test has begun.
        threshold: Their quantile of 95%.
    """

    normal_scores: Tensor
    threshold: Tensor

    def __init__(
        self,
        encoder: TrainedEncoderConfig,
        weights: Mapping[str, float],
        optimizer: OptimizerCallable,
        warmup_steps: int,
        schedule: Literal["step", "epoch"],
    ) -> None:
        super().__init__()
        for name, weight in weights.items():
            at_least(f"model.{name}_weight", weight, 0)
        at_least("model.warmup_steps", warmup_steps, 0)
        check_optimizer(optimizer)
        self.weights = dict(weights)
        self.make_optimizer = optimizer
        self.warmup_steps = warmup_steps
        self.schedule = schedule
        self.encoder_config, self.encoder = build_encoder(encoder)
        self.encoder.to(memory_format=torch.channels_last)  # a tenth faster on CPUs, more on GPUs
        self.probe = FeatureProbe()
        self._tested: list[tuple[int, dict[str, float]]] = []
        self._start: StartingPoint | None = None
        limit_training(self.encoder, self.encoder_config)

    @abstractmethod
    def losses(self, batch: dict[str, Tensor], across_ranks: bool = False) -> dict[str, Tensor]:
        """Losses and whatever else is worth logging, by name.

        Args:
            batch: What the data module or the loader gives, images and views in [0, 1].
            across_ranks: Whether images are related to those of all ranks, every one of which must then call this. The
                mean over ranks of each loss, and of its gradient, is to be that of one process with all of the images.

        Returns:
            Scalars; every name in `weights` is among them.
        """

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum that is minimised."""
        return torch.stack([weight * losses[name] for name, weight in self.weights.items()]).sum()

    def check_images(self, preprocessing: Preprocessing) -> None:
        """Refuses tiles, which are what detectors see; pretraining has its own.

        Raises:
            UserError: If images are to be cut into tiles.
        """
        if preprocessing.tiling:
            raise UserError(
                "Pretraining takes whole images: leave out data.tiles, which is for detectors. To learn from parts of"
                " the images, give --data.views.tile SIDE, a divisor of their height and width."
            )

    def take_data(self, data: NormalImages, stage: str) -> None:
        """Takes over what a subclass has to know of the data before a stage of Lightning begins, or raises."""

    def setup(self, stage: str) -> None:
        """Takes over what the data say and the weights to start from, and has batch norm see all GPUs' images."""
        if data := find_normal_images(self._trainer):
            self.take_data(data, stage)
        if stage != "fit":
            return
        self.encoder_sources = {"encoder": initialise_encoder(self.encoder, self.encoder_config)}
        self._start = StartingPoint(self.encoder) if self.encoder_config.l2_sp else None
        if self._trainer is None or self.trainer.world_size == 1:
            return
        if self.trainer.strategy.root_device.type == "cuda":
            synchronise(self)
        else:
            rank_zero_warn("Off the GPU, batch normalisation sees each process's own images, not those of all.")

    def train(self, mode: bool = True) -> Self:
        """Keeps the parts of the encoder that are not trained, and the batch norms that are kept, in eval mode."""
        super().train(mode)
        for part in (*frozen_parts(self.encoder), *self._kept_norms()):
            part.eval()
        return self

    def _kept_norms(self) -> set[nn.Module]:
        return kept_norms(self.encoder, self.encoder_config)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, features_size) of images (B, 3, H, W) in [0, 1]."""
        return self.encoder.features(images)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stores the encoder's settings, and what L2-SP keeps the encoder near to."""
        checkpoint.setdefault("hyper_parameters", {})["encoder"] = self.encoder.settings()
        if self._start:
            self._start.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over, when a run is resumed, what L2-SP keeps the encoder near to."""
        if self._start:
            self._start.load(checkpoint)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One step of pretraining."""
        return self._step(batch, "train")

    def on_validation_epoch_start(self) -> None:
        """Calibrates the encoder for whole images, or tiles, so that every checkpoint's is ready to use."""
        if self.trainer.state.fn == "fit" and find_normal_images(self.trainer):
            self.calibrate(lambda: self._train_images(CALIBRATED))

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """The same quantities on held-out normal images, whose views are the same every time."""
        with batch_statistics(self, self._kept_norms()):
            self._step(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Probes how well the features tell held-out images from what stands for abnormal ones."""
        if self.trainer.state.fn == "fit" and (data := find_normal_images(self.trainer)):
            probed = {f"val/probe_{name}": value for name, value in self._probe_held_out(data).items()}
            self.log_dict(probed, sync_dist=True)

    @torch.no_grad()
    def _probe_held_out(self, data: NormalImages) -> dict[str, float]:
        """How well the probe tells held-out images from what stands for abnormal ones; {} if training broke down."""
        if not self._fit_probe():
            return {}
        return probe_held_out(self._distances, lambda shown: self.probe(self(shown)), data, self.device)

    def on_test_start(self) -> None:
        """Fits the probe: a Gaussian of the training images' features, its threshold from the held-out ones."""
        self._tested.clear()
        if not self._fit_probe():
            raise UserError("This run's features are not numbers: its training broke down. Fit it again, more slowly.")
        held_out = self._data.normal_images(self.device)[1]
        self.normal_scores = torch.cat([self._distances(images) for images, _ in held_out])
        self.threshold = torch.quantile(self.normal_scores, 0.95)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """The losses on the normal test images, and the probe's scores of all of them."""
        normal = batch["label"] == 0
        if normal.any():
            shown = {name: value[normal] for name, value in batch.items() if isinstance(value, Tensor)}
            with batch_statistics(self, self._kept_norms()):
                losses = self.losses(shown)
            self._tested.append((int(normal.sum()), {name: float(value) for name, value in losses.items()}))
        with torch.autocast(self.device.type, enabled=False):  # as when the probe was fitted
            return require_numbers({"scores": self._distances(batch["image"])}, batch)

    def on_test_epoch_end(self) -> None:
        """Averages the losses over all ranks' normal images, of which a rank may have had none."""
        seen = [batch for share in gather_ranks(self._tested) for batch in share]
        self.log_dict({f"test/{name}": mean for name, mean in weighted_means(seen).items()}, sync_dist=True)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Refuses: an encoder alone decides nothing about an image."""
        raise UserError(
            "This run pretrained an encoder, which scores no images. Fit a detector on it: ccd fit --config"
            " padim_folder --data.root DIR --model.encoder.weights RUN"
        )

    @property
    def _data(self) -> NormalImages:
        return require_normal_images(self.trainer, "The test of an encoder")

    def _shown(self, images: Tensor) -> Tensor:
        """What the encoder is for: the images (B, 3, H, W), or all of their tiles."""
        side = self._data.tile
        return tiles(images, side) if side else images

    def _train_images(self, at_most: int | None = None) -> Iterator[Tensor]:
        """This rank's share of the training images, or of their tiles, batch by batch."""
        ranks = self.global_rank, self.trainer.world_size
        return (self._shown(images) for images, _ in self._data.normal_images(self.device, *ranks, at_most)[0])

    def calibrate(self, batches: Batches) -> None:
        """Takes the running statistics of the encoder's batch norm from images, but for norms that are kept.

        Args:
            batches: Gives batches (B, 3, H, W) in [0, 1] of this process's images, on the module's device, the same
                each time.
        """
        calibrate(self.encoder, batches, self._add_up, self._kept_norms())

    def _add_up(self, sums: Tensor) -> Tensor:
        return sums if self._trainer is None else torch.as_tensor(self.trainer.strategy.reduce(sums, reduce_op="sum"))

    @torch.no_grad()
    def _fit_probe(self) -> bool:
        """Fits the probe to the training images, unless training has broken down and their features are no numbers."""
        for images in self._train_images():
            self.probe.update(self(images))
        return self.probe.fit(gather_ranks)

    def _distances(self, images: Tensor) -> Tensor:
        """The probe's scores (B,) of images (B, 3, H, W): where there are tiles, that of the farthest one."""
        return self.probe(self(self._shown(images))).view(len(images), -1).amax(dim=1)

    def _step(self, batch: dict[str, Tensor], stage: str) -> Tensor:
        losses = self.losses(unit_range_batch(batch), across_ranks=True)
        loss = self.total(losses)
        if self._start and stage == "train":  # the loss of validation chooses the checkpoint, and not an early one
            losses["l2_sp"] = self._start.distance(self.encoder)
            loss = loss + self.encoder_config.l2_sp * losses["l2_sp"]
        names, values = zip(*{"loss": loss, **losses}.items(), strict=True)
        own = torch.stack([value.detach().float() for value in values])
        means = torch.as_tensor(self.trainer.strategy.reduce(own, reduce_op="mean"))  # over ranks, all at once
        named = {f"{stage}/{name}": mean for name, mean in zip(names, means, strict=True)}
        self.log_dict(named, batch_size=1, on_step=stage == "train", on_epoch=stage != "train")
        # Each number in the bar is read off the device in each step, for which a GPU would have to wait.
        in_bar = stage != "train" or self.device.type == "cpu"
        self.log(f"{stage}_loss", named[f"{stage}/loss"], batch_size=1, prog_bar=in_bar, logger=False)
        return loss

    def configure_optimizers(self) -> Any:
        """The optimiser with warm-up and cosine; the encoder may have a rate of its own."""
        optimizer = make_optimizer(self.make_optimizer, self, self.encoder, self.encoder_config)
        schedule = warmup_cosine(optimizer, self.trainer, self.warmup_steps, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
