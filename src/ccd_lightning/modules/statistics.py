"""What detectors without gradients share: statistics of normal images, taken in one pass."""

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

IMAGE_SIZE = "image_size"  # in checkpoints: height and width of the images of the fit


class StatisticsDetector(OneClassDetector):
    """A detector that is fitted by one pass over the training images, with the encoder as it is.

    A subclass says what is collected of a batch, how the collections of several processes become one, and what is made
    of the result. It may collect what it likes, of a size that depends on the images or not; what scoring needs has to
    be in buffers in the end. Where their sizes are known only then, they belong into a `FittedModule`, which takes them
    over from a checkpoint.

    Args:
        encoder: Where the encoder's weights come from; None for a detector without an encoder of its own.
        quantile: Share of the held-out normal images whose score is at most the threshold, in (0, 1).
    """

    def __init__(self, encoder: EncoderConfig | None, quantile: float) -> None:
        super().__init__(encoder, quantile)
        self.automatic_optimization = False  # there is nothing to optimise, and Lightning may not look for a loss
        self._collecting = False  # whether something was collected since the last fit
        self._image_size: tuple[int, int] | None = None  # of the fit, where a subclass says it

    @abstractmethod
    def collect(self, images: Tensor, content: Tensor | None = None) -> None:
        """Adds a batch of normal images, or of tiles of them; there is no gradient, and precision is full.

        This one only remembers the images' size, for `expecting_size`.

        Args:
            images: (B, 3, H, W) in [0, 1].
            content: Their boxes (B, 4) int64, of which none is empty (`models.content`); None where all is content.
        """
        self._image_size = images.shape[-2], images.shape[-1]

    @contextmanager
    def expecting_size(self, images: Tensor) -> Iterator[None]:
        """Refuses images (B, 3, H, W) of another size than those of the fit, in what is scored within.

        Raises:
            UserError: If their size is another one, or a ValueError says that the statistics do not fit to them.
        """
        height, width = images.shape[-2:]
        refused = f"Images of {width} x {height} px do not go with this detector"
        if self._image_size not in (None, (height, width)):
            fitted = f"{self._image_size[1]} x {self._image_size[0]}" if self._image_size else ""
            option = "--data.tiles" if self.tiles else "--data.size"
            raise UserError(f"{refused}: it was fitted to {fitted} px. Give the {option} of the fit.")
        try:
            yield
        except ValueError as error:
            raise UserError(f"{refused}: it was not fitted, or at another --data.size ({error}).") from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Says how large the images of the fit were."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[IMAGE_SIZE] = self._image_size

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over how large they were, which older checkpoints do not say."""
        super().on_load_checkpoint(checkpoint)
        size = checkpoint.get(IMAGE_SIZE)
        self._image_size = (int(size[0]), int(size[1])) if size else None

    @abstractmethod
    def merge_ranks(self) -> None:
        """Replaces what this rank has collected by what all have; only called with several, and then on each of them.

        For tensors of one shape there is `self.all_gather`, for others `distributed.gather_rows` and `gather_ranks`.
        """

    @abstractmethod
    def fit_statistics(self) -> None:
        """Turns what was collected into the buffers that scoring needs, and releases it."""

    def on_train_epoch_start(self) -> None:
        """Keeps encoders as pretraining left them."""
        for encoder in self.encoders:
            encoder.eval()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Collects one batch."""
        with torch.no_grad(), self.full_precision():
            for images, content in self.shown(batch):
                self.collect(images) if content is None else self.collect(images, content)
        self._collecting = True
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)  # Lightning's own, as there is none
        optimizer.step()  # does nothing but count the step, without which nothing is saved

    def on_validation_epoch_start(self) -> None:
        """Fits, so that validation can score."""
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self._fit()

    def on_train_epoch_end(self) -> None:
        """Fits here when nothing was validated."""
        if self._collecting:
            self._fit()

    def _fit(self) -> None:
        if self.trainer.world_size > 1:
            self.merge_ranks()
        self.fit_statistics()
        self._collecting = False

    def configure_optimizers(self) -> None:
        """There is nothing to optimise."""
