"""Base class of encoder pretraining; subclasses define the losses."""

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
from ccd_lightning.overrides import check_overrides
from ccd_lightning.ranges import at_least
from ccd_lightning.transforms.patches import tiles

CALIBRATED = 256  # images for calibration: enough for means and variances over pixels; each norm needs a pass


class EncoderPretraining(LightningModule, ABC):
    """Trains an encoder on normal images; subclasses add heads and losses.

    With a data module that provides normal images (`NormalImages`), each validation calibrates the encoder's batch norm
    on training images and probes its features, and the encoder can be tested. Without one, as in
    `Trainer.fit(module, DataLoader(...))`, neither is done: batch norm keeps the running statistics of the views. Then
    call `calibrate` after the fit with whole images, which are what detectors pass to the encoder.

    Args:
        encoder: The encoder's initial weights, and how they are fine-tuned.
        weights: Weights of the losses that are minimised, by name.
        optimizer: Creates the optimiser from the parameters.
        warmup_steps: Optimiser steps over which the learning rate rises. Without warm-up, random weights may collapse.
        schedule: Whether the cosine schedule is updated every "step" or, as published, every "epoch".

    Attributes:
        probe: Gaussian of the training images' features, fitted when needed.
        normal_scores: Distances of the held-out images from it, (N,), set when a test starts.
        threshold: 95% quantile of these distances.
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
        check_overrides(type(self))
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
        """Computes the losses, and other values to log, by name.

        Args:
            batch: Batch of the data module or the loader, with images and views in [0, 1].
            across_ranks: Whether images are compared with those of all ranks; then every rank must call this method.
                The mean over ranks of each loss, and of its gradient, must equal that of one process with all images.

        Returns:
            Scalars by name, including every name in `weights`.
        """

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Returns the weighted sum of the losses, which is minimised."""
        return torch.stack([weight * losses[name] for name, weight in self.weights.items()]).sum()

    def check_images(self, preprocessing: Preprocessing) -> None:
        """Checks that `data.tiles` is not set: it is for detectors, and pretraining has its own option.

        Raises:
            UserError: If it is set.
        """
        if preprocessing.tiling:
            raise UserError(
                "Pretraining takes whole images: leave out data.tiles, which is for detectors. To learn from parts of"
                " the images, give --data.views.tile SIDE, a divisor of their height and width."
            )

    def take_data(self, data: NormalImages, stage: str) -> None:
        """Adapts the module to the data before a stage of Lightning begins; subclasses may override this."""

    def setup(self, stage: str) -> None:
        """Adapts to the data, initialises the encoder, and synchronises batch norm across GPUs."""
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
            rank_zero_warn("Without GPUs, batch normalisation is computed per process, not over all processes.")

    def train(self, mode: bool = True) -> Self:
        """Sets the mode, but keeps frozen parts and batch norm layers with fixed statistics in eval mode."""
        super().train(mode)
        for part in (*frozen_parts(self.encoder), *self._kept_norms()):
            part.eval()
        return self

    def _kept_norms(self) -> set[nn.Module]:
        return kept_norms(self.encoder, self.encoder_config)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the features (B, features_size) of images (B, 3, H, W) in [0, 1]."""
        return self.encoder.features(images)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stores the encoder's settings, and with L2-SP its initial parameters."""
        checkpoint.setdefault("hyper_parameters", {})["encoder"] = self.encoder.settings()
        if self._start:
            self._start.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the initial parameters for L2-SP when a run is resumed."""
        if self._start:
            self._start.load(checkpoint)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Performs one training step."""
        return self._step(batch, "train")

    def on_validation_epoch_start(self) -> None:
        """Calibrates the encoder's batch norm on whole images or tiles, so that every checkpoint is ready to use."""
        if self.trainer.state.fn == "fit" and find_normal_images(self.trainer):
            self.calibrate(lambda: self._train_images(CALIBRATED))

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Computes the losses on held-out normal images, with the same views each time."""
        with batch_statistics(self, self._kept_norms()):
            self._step(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Logs how well the features separate held-out images from artificially abnormal ones."""
        if self.trainer.state.fn == "fit" and (data := find_normal_images(self.trainer)):
            probed = {f"val/probe_{name}": value for name, value in self._probe_held_out(data).items()}
            self.log_dict(probed, sync_dist=True)

    @torch.no_grad()
    def _probe_held_out(self, data: NormalImages) -> dict[str, float]:
        """Measures how well the probe separates held-out from artificially abnormal images; {} if training failed."""
        if not self._fit_probe():
            return {}
        return probe_held_out(self._distances, lambda shown: self.probe(self(shown)), data, self.device)

    def on_test_start(self) -> None:
        """Fits the probe to the training images, and sets its threshold from the held-out images."""
        self._tested.clear()
        if not self._fit_probe():
            raise UserError(
                "This run's features are not finite, because its training diverged. Fit it again with a lower"
                " learning rate."
            )
        held_out = self._data.normal_images(self.device)[1]
        self.normal_scores = torch.cat([self._distances(images) for images, _ in held_out])
        self.threshold = torch.quantile(self.normal_scores, 0.95)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Computes the losses on the normal test images, and the probe's scores of all test images."""
        normal = batch["label"] == 0
        if normal.any():
            shown = {name: value[normal] for name, value in batch.items() if isinstance(value, Tensor)}
            with batch_statistics(self, self._kept_norms()):
                losses = self.losses(shown)
            self._tested.append((int(normal.sum()), {name: float(value) for name, value in losses.items()}))
        with torch.autocast(self.device.type, enabled=False):  # as when the probe was fitted
            return require_numbers({"scores": self._distances(batch["image"])}, batch)

    def on_test_epoch_end(self) -> None:
        """Averages the losses over the normal images of all ranks; a rank may have none."""
        seen = [batch for share in gather_ranks(self._tested) for batch in share]
        self.log_dict({f"test/{name}": mean for name, mean in weighted_means(seen).items()}, sync_dist=True)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Raises a `UserError`, because an encoder alone does not score images."""
        raise UserError(
            "This run pretrained an encoder, which scores no images. Fit a detector on it: ccd fit --config"
            " padim_folder --data.root DIR --model.encoder.weights RUN"
        )

    @property
    def _data(self) -> NormalImages:
        return require_normal_images(self.trainer, "The test of an encoder")

    def _shown(self, images: Tensor) -> Tensor:
        """Returns the encoder's input: the images (B, 3, H, W), or all their tiles."""
        side = self._data.tile
        return tiles(images, side) if side else images

    def _train_images(self, at_most: int | None = None) -> Iterator[Tensor]:
        """Yields this rank's share of the training images, or of their tiles, batch by batch."""
        ranks = self.global_rank, self.trainer.world_size
        return (self._shown(images) for images, _ in self._data.normal_images(self.device, *ranks, at_most)[0])

    def calibrate(self, batches: Batches) -> None:
        """Recomputes the running statistics of the encoder's batch norm from images, except for fixed layers.

        Args:
            batches: Returns an iterator over batches (B, 3, H, W) in [0, 1] of this process's images, on the module's
                device, the same each time.
        """
        calibrate(self.encoder, batches, self._add_up, self._kept_norms())

    def _add_up(self, sums: Tensor) -> Tensor:
        return sums if self._trainer is None else torch.as_tensor(self.trainer.strategy.reduce(sums, reduce_op="sum"))

    @torch.no_grad()
    def _fit_probe(self) -> bool:
        """Fits the probe to the training images; returns False if training failed and features are not finite."""
        for images in self._train_images():
            self.probe.update(self(images))
        return self.probe.fit(gather_ranks)

    def _distances(self, images: Tensor) -> Tensor:
        """Returns the probe's scores (B,) of images (B, 3, H, W); with tiles, the maximum over the tiles."""
        return self.probe(self(self._shown(images))).view(len(images), -1).amax(dim=1)

    def _step(self, batch: dict[str, Tensor], stage: str) -> Tensor:
        losses = self.losses(unit_range_batch(batch), across_ranks=True)
        loss = self.total(losses)
        # Not in validation, whose loss selects the checkpoint: with the penalty it would favour early ones.
        if self._start and stage == "train":
            losses["l2_sp"] = self._start.distance(self.encoder)
            loss = loss + self.encoder_config.l2_sp * losses["l2_sp"]
        names, values = zip(*{"loss": loss, **losses}.items(), strict=True)
        own = torch.stack([value.detach().float() for value in values])
        means = torch.as_tensor(self.trainer.strategy.reduce(own, reduce_op="mean"))  # over ranks, all at once
        named = {f"{stage}/{name}": mean for name, mean in zip(names, means, strict=True)}
        self.log_dict(named, batch_size=1, on_step=stage == "train", on_epoch=stage != "train")
        # Values in the progress bar are read from the device in each step, which would synchronise a GPU.
        in_bar = stage != "train" or self.device.type == "cpu"
        self.log(f"{stage}_loss", named[f"{stage}/loss"], batch_size=1, prog_bar=in_bar, logger=False)
        return loss

    def configure_optimizers(self) -> Any:
        """Creates the optimiser and its schedule with warm-up and cosine; the encoder may have its own rate."""
        optimizer = make_optimizer(self.make_optimizer, self, self.encoder, self.encoder_config)
        schedule = warmup_cosine(optimizer, self.trainer, self.warmup_steps, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
