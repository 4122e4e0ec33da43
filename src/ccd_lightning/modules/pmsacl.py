"""PMSACL, the successor of CCD: pretraining with pseudo-lesions as classes, each with its own centre."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from copy import copy
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.random import fork_rng
from torch.utils.data import DataLoader

from ccd_lightning.data.loading import unit_range_batch
from ccd_lightning.distributed import gather_ranks, gather_rows
from ccd_lightning.errors import UserError
from ccd_lightning.losses.centring import centred, centring_loss
from ccd_lightning.losses.contrastive import nt_xent
from ccd_lightning.models.batchnorm import batch_statistics
from ccd_lightning.models.heads import ProjectionHead
from ccd_lightning.models.igd.settings import plain
from ccd_lightning.modules.ccd import CCD, view_classes
from ccd_lightning.ranges import above, at_least


@dataclass
class Centring:
    """How the centres of the classes are computed and used.

    The paper was not available, and its public summary does not say which of these variants it uses.

    Attributes:
        space: Whether centres are computed on the encoder's "features" or on their "projection". The projection head
            starts from random weights.
        subtracted: Which centre is subtracted before the contrastive loss: that of each image's "own" class, that of
            the "untouched" images for all classes, or "none".
        relative: Whether the centring loss is divided by its value for the initial encoder. It then starts near 1, so
            its weight has the same effect for every encoder. false uses the formula as it is.
        projection_norm: Whether the projection head ends with batch norm, which counteracts centres of projections.
    """

    space: Literal["features", "projection"] = "features"
    subtracted: Literal["own", "untouched", "none"] = "own"
    relative: bool = True
    projection_norm: bool = True


class PMSACL(CCD):
    """Pseudo multi-class strong augmentation via contrastive learning (Tian et al., MedIA 2023, arXiv 2109.01303).

        L = w_con L_con + w_cla L_cla + w_pos L_pos + w_ctr L_ctr

    Its strong family is `transforms.medmix.MedMix`, with the number of pseudo-lesions as class. Each class has a
    centre: the mean feature of its training views, computed once at the start of a fit with the initial encoder, and
    stored in the checkpoint. L_ctr pulls the features of a class towards its centre (`losses.centring`). L_con is
    computed after subtracting the centres, and contrasts instances of the same class less than those of different
    classes (`losses.contrastive`). Everything else is as in CCD.

    The paper was not available, only a public summary of it. Everything that the summary does not specify is an option
    with our own default: alpha, the temperature, and all of `centring`.

    Args:
        alpha: Factor of the temperature for two views of the same class. Above 1, these are contrasted less.
        centring_weight: Weight w_ctr of the centring loss. 0 turns it off.
        centring: How centres are computed and used.
        options: Options of `CCD`.

    Attributes:
        centres: Centres of the classes, (K, D); NaN before the first fit.
        centre_spread: Mean squared distance of the initial features from their centres, a scalar.
    """

    centres: Tensor
    centre_spread: Tensor

    def __init__(
        self,
        alpha: float = 2.0,
        centring_weight: float = 1.0,
        centring: Centring = Centring(),
        **options: Any,
    ) -> None:
        above("model.alpha", alpha, 0)
        at_least("model.centring_weight", centring_weight, 0)
        self.centring = Centring(**plain(centring))  # a checkpoint has plain values
        super().__init__(**options)
        self.hparams.update(centring=asdict(self.centring))
        self.alpha = alpha
        if centring_weight:
            self.weights["centring"] = centring_weight
        if not self.centring.projection_norm:
            self.projection = ProjectionHead(self.encoder.features_size, last_norm=False)

    def _make_head(self, count: int) -> None:
        """Creates the augmentation head and the buffers for the centres of its classes."""
        super()._make_head(count)
        size = self.encoder.features_size if self.centring.space == "features" else ProjectionHead.OUTPUTS
        if not hasattr(self, "centres") or len(self.centres) != count:
            self.register_buffer("centres", torch.full((count, size), float("nan"), device=self.device))
            self.register_buffer("centre_spread", torch.tensor(float("nan"), device=self.device))

    @property
    def needs_classes(self) -> bool:
        """Whether batches must contain the strong augmentation: always, because each class has its own centre."""
        return True

    def project(self, features: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Returns the projections (2BK, 128) of the features (2BK, F), after subtracting centres of features."""
        of_features = self.centring.space == "features"
        return super().project(self._without_centres(features, batch) if of_features else features, batch)

    def contrasted(self, projections: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Returns the projections (2BK, 128) after subtracting centres of projections."""
        return projections if self.centring.space == "features" else self._without_centres(projections, batch)

    def _without_centres(self, vectors: Tensor, batch: dict[str, Tensor]) -> Tensor:
        if self.centring.subtracted == "none":
            return vectors
        classes = view_classes(batch)
        own = self.centring.subtracted == "own"
        return centred(vectors, self.centres, classes if own else torch.zeros_like(classes))

    def contrast(self, first: Tensor, second: Tensor, batch: dict[str, Tensor], across_ranks: bool) -> Tensor:
        """Returns the class-weighted contrastive loss of the first and second views (N, 128); see `CCD.contrast`."""
        classes = batch["augmentation"].flatten()
        if across_ranks:
            classes = gather_rows(classes[:, None].to(first.dtype))[:, 0]
        return nt_xent(first, second, self.temperature, classes, self.alpha)

    def constraints(self, features: Tensor, projections: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the centring loss of features (2BK, F) or projections (2BK, 128), unless its weight is 0."""
        if "centring" not in self.weights:
            return {}
        vectors = features if self.centring.space == "features" else projections
        loss = centring_loss(vectors, self.centres, view_classes(batch))
        return {"centring": loss / self.centre_spread if self.centring.relative else loss}

    def on_fit_start(self) -> None:
        """Computes the centres, unless a resumed run already has them.

        Raises:
            UserError: If a batch lacks a tensor that is needed, or features are not finite.
        """
        if bool(self.centres.isfinite().all()):
            return
        with torch.no_grad(), batch_statistics(self, self._kept_norms()), fork_rng(devices=[]):
            shares = gather_ranks(self._sum_up(self._training_batches()))
        count, total, squares = (torch.stack(parts).sum(dim=0) for parts in zip(*shares, strict=True))
        everyone = total.sum(dim=0) / count.sum()
        centres = torch.where(count[:, None] > 0, total / count[:, None].clamp(min=1), everyone)  # (K, D)
        spread = (squares - count[:, None] * centres.square()).sum() / count.sum()  # mean |f - c_n|^2
        if not bool(centres.isfinite().all()):
            raise UserError(
                "The class centres are not finite, because the initial weights of the encoder are invalid. Give others"
                " with --model.encoder.weights."
            )
        self.centres.copy_(centres)
        self.centre_spread.copy_(spread.clamp(min=1e-12))

    def _training_batches(self) -> Iterator[dict[str, Tensor]]:
        """Yields this rank's batches of the first epoch, the same as in training."""
        self.trainer.fit_loop.setup_data()
        loader, count = copy(self.trainer.train_dataloader), self.trainer.num_training_batches
        assert loader is not None  # Lightning does not fit without one
        if isinstance(loader, DataLoader):
            loader._iterator = None  # otherwise the copy would share persistent workers with the first epoch
        for batch in itertools.islice(loader, None if math.isinf(count) else int(count)):
            moved = self.trainer.strategy.batch_to_device(batch, dataloader_idx=0)
            yield unit_range_batch(self.trainer.precision_plugin.convert_input(moved))

    def _sum_up(self, batches: Iterator[dict[str, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the number of views per class (K,), and the sums of vectors and of squares (K, D), on the CPU."""
        total = torch.zeros(self.centres.shape, dtype=torch.float64)
        squares, seen = torch.zeros_like(total), torch.zeros(len(total), dtype=torch.float64)
        for number, batch in enumerate(batches):
            if number == 0:
                self._check_batch(batch)
            features = self.encoder.features(batch["views"].transpose(0, 1).flatten(0, 2))
            vectors = features if self.centring.space == "features" else self.projection(features)
            vectors, classes = vectors.cpu().double(), view_classes(batch).cpu()
            seen += torch.bincount(classes, minlength=len(seen))
            total.index_add_(0, classes, vectors)
            squares.index_add_(0, classes, vectors.square())
        return seen, total, squares
