"""What modules ask of a data module: normal images, beside the batches that the trainer gives."""

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
    """A data module that gives normal images whenever a module asks for them; `AnomalyDataModule` is one.

    Attributes:
        seed: Decides everything that is drawn.
    """

    seed: int

    @property
    def tile(self) -> int:
        """Side of the tiles that views are drawn from, in pixels; 0 where they are drawn from whole images."""
        ...

    @property
    def distributions(self) -> int | None:
        """How many strong augmentations the views have; None where they have no family."""
        ...

    @property
    def position_pairs(self) -> int | None:
        """How many pairs of patches are drawn of an image; None where the views do not say."""
        ...

    def normal_images(
        self, device: torch.device, rank: int = 0, ranks: int = 1, at_most: int | None = None
    ) -> tuple[Iterator[ImageBatch], Iterator[ImageBatch]]:
        """Batches of the training and of the held-out images.

        Args:
            device: Where they are put.
            rank: Which of the shares of the batches to give.
            ranks: Into how many shares they are dealt out; 1 gives all of them, the same on every rank.
            at_most: About how many images of each to give, evenly spaced, the same each time; None gives all.
        """
        ...

    def held_out_distributions(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Held-out images (N, 3, H, W) in [0, 1] under each strong augmentation, and the index (N,) of each one's."""
        ...


def find_normal_images(trainer: Trainer | None) -> NormalImages | None:
    """The data module of a trainer, if it gives normal images; None with plain loaders, or without a trainer."""
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, NormalImages) else None


def require_normal_images(trainer: Trainer | None, purpose: str) -> NormalImages:
    """The same, where it is needed.

    Args:
        trainer: Of the module.
        purpose: What needs the images, for the message: "IGD", for example.

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
    """The data module of a trainer that tests or fits one of the project's runs.

    Raises:
        UserError: If the trainer has another one, or none.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, AnomalyDataModule):
        raise UserError("This needs one of the project's data modules, such as ccd_lightning.data.datasets.Folder.")
    return data
