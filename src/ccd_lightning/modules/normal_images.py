"""Access of modules to the normal images of a data module, in addition to the trainer's batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.loading import ImageBatch
from ccd_lightning.errors import UserError


@runtime_checkable
class NormalImages(Protocol):
    """Protocol of a data module that provides normal images on request, such as `AnomalyDataModule`.

    Attributes:
        seed: Seed of all random draws.
    """

    seed: int

    @property
    def tile(self) -> int:
        """Side of the tiles that views are drawn from, in pixels; 0 if they are drawn from whole images."""
        ...

    @property
    def distributions(self) -> int | None:
        """Number of strong augmentations of the views; None if they have no family."""
        ...

    @property
    def position_pairs(self) -> int | None:
        """Number of patch pairs per image; None if the views do not define it."""
        ...

    def normal_images(
        self, device: torch.device, rank: int = 0, ranks: int = 1, at_most: int | None = None
    ) -> tuple[Iterator[ImageBatch], Iterator[ImageBatch]]:
        """Returns iterators over batches of the training images and of the held-out images.

        Args:
            device: Device to which the batches are moved.
            rank: Index of the share of the batches to return.
            ranks: Number of shares into which the batches are divided; 1 returns all batches, the same on every rank.
            at_most: Approximate number of images of each kind, evenly spaced and the same each time; None returns all.
        """
        ...

    def held_out_distributions(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields held-out images (N, 3, H, W) in [0, 1] under each strong augmentation, and its index (N,)."""
        ...


def find_normal_images(trainer: Trainer | None) -> NormalImages | None:
    """Returns the data module of a trainer if it provides normal images; None with plain loaders or no trainer."""
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, NormalImages) else None


def require_normal_images(trainer: Trainer | None, purpose: str) -> NormalImages:
    """Returns the data module of a trainer, which must provide normal images.

    Args:
        trainer: Trainer of the module.
        purpose: What needs the images, such as "IGD", used in the error message.

    Raises:
        UserError: If the trainer has no such data module.
    """
    if (data := find_normal_images(trainer)) is None:
        raise UserError(
            f"{purpose} needs the normal images themselves, not only batches of a DataLoader: give the trainer a data"
            " module such as ccd_lightning.data.datasets.Folder."
        )
    return data


def anomaly_data(trainer: Trainer) -> AnomalyDataModule:
    """Returns the data module of a trainer, which must be one of this package's.

    Raises:
        UserError: If the trainer has no data module, or another one.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, AnomalyDataModule):
        raise UserError("This needs one of the project's data modules, such as ccd_lightning.data.datasets.Folder.")
    return data
