"""Base class of detectors without gradient training, which collect statistics of normal images in one pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from ccd_lightning.encoder_config import EncoderConfig
from ccd_lightning.errors import UserError
from ccd_lightning.modules.detector import OneClassDetector

IMAGE_SIZE = "image_size"  # key in checkpoints: height and width of the images of the fit


class StatisticsDetector(OneClassDetector):
    """A detector that is fitted in one pass over the training images, with a fixed encoder.

    Subclasses define what is collected from a batch, how the collected values of several processes are merged, and how
    the detector is fitted to the result. The size of the collected values may depend on the images. Everything that
    scoring needs must be in buffers in the end. Buffers with sizes that are known only after the fit belong in a
    `FittedModule`, which resizes them when a checkpoint is loaded.

    Args:
        encoder: Source of the encoder's weights; None for a detector without its own encoder.
        quantile: Share of held-out normal images that score at most the threshold, in (0, 1).
    """

    def __init__(self, encoder: EncoderConfig | None, quantile: float) -> None:
        super().__init__(encoder, quantile)
        self.automatic_optimization = False  # there is no loss to optimise
        self._collecting = False  # whether anything was collected since the last fit
        self._image_size: tuple[int, int] | None = None  # height and width in the fit, if `collect` sets it

    @abstractmethod
    def collect(self, images: Tensor, content: Tensor | None = None) -> None:
        """Collects a batch of normal images or tiles; called without gradients and in full precision.

        This implementation only stores the size of the images for `expecting_size`.

        Args:
            images: Images in [0, 1], (B, 3, H, W).
            content: Non-empty content boxes of the images (see `models.content`), (B, 4) int64; None if everything is
                content.
        """
        self._image_size = images.shape[-2], images.shape[-1]

    @contextmanager
    def expecting_size(self, images: Tensor) -> Iterator[None]:
        """Checks that images (B, 3, H, W) have the size of the fit, for code inside the context.

        Raises:
            UserError: If the size differs, or code inside the context raises a ValueError.
        """
        height, width = images.shape[-2:]
        refused = f"Images of {width} x {height} px do not fit this detector"
        if self._image_size not in (None, (height, width)):
            fitted = f"{self._image_size[1]} x {self._image_size[0]}" if self._image_size else ""
            option = "--data.tiles" if self.tiles else "--data.size"
            raise UserError(f"{refused}: it was fitted to {fitted} px. Give the {option} of the fit.")
        try:
            yield
        except ValueError as error:
            raise UserError(f"{refused}: it was not fitted, or at another --data.size ({error}).") from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stores the image size of the fit."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[IMAGE_SIZE] = self._image_size

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the image size of the fit, which older checkpoints do not contain."""
        super().on_load_checkpoint(checkpoint)
        size = checkpoint.get(IMAGE_SIZE)
        self._image_size = (int(size[0]), int(size[1])) if size else None

    @abstractmethod
    def merge_ranks(self) -> None:
        """Replaces this rank's collected values with those of all ranks; called on each rank if there are several.

        Use `self.all_gather` for tensors of the same shape, and `distributed.gather_rows` or `gather_ranks` for others.
        """

    @abstractmethod
    def fit_statistics(self) -> None:
        """Computes the buffers that scoring needs from the collected values, and releases these."""

    def on_train_epoch_start(self) -> None:
        """Sets the encoders to eval mode, so that their batch norm statistics do not change."""
        for encoder in self.encoders:
            encoder.eval()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Collects one batch."""
        with torch.no_grad(), self.full_precision():
            for images, content in self.fit_inputs(batch):
                self.collect(images) if content is None else self.collect(images, content)
        self._collecting = True
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)  # Lightning's dummy optimiser
        optimizer.step()  # only counts the step, because Lightning saves no checkpoint without steps

    def on_validation_epoch_start(self) -> None:
        """Fits the detector, so that validation can score images."""
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self._fit()

    def on_train_epoch_end(self) -> None:
        """Fits the detector if there was no validation."""
        if self._collecting:
            self._fit()

    def _fit(self) -> None:
        if self.trainer.world_size > 1:
            self.merge_ranks()
        self.fit_statistics()
        self._collecting = False

    def configure_optimizers(self) -> None:
        """Returns no optimiser."""
