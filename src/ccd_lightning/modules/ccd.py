"""CCD: pretraining of an encoder on normal images only."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional

from ccd_lightning.distributed import gather_rows, world_size
from ccd_lightning.encoder_config import TrainedEncoderConfig
from ccd_lightning.errors import UserError
from ccd_lightning.losses.contrastive import alignment, nt_xent, uniformity
from ccd_lightning.models.heads import AugmentationHead, PositionHead, ProjectionHead, feature_std
from ccd_lightning.modules.normal_images import NormalImages, find_normal_images
from ccd_lightning.modules.pretraining import EncoderPretraining
from ccd_lightning.ranges import above, at_least
from ccd_lightning.renamed import rename_tensors


class CCD(EncoderPretraining):
    """Constrained contrastive distribution learning (Tian et al., MICCAI 2021).

        L = w_con L_con + w_cla L_cla + w_pos L_pos

    Batches contain the output of `PretextViews`: `views` (B, 2, K, 3, S, S), `augmentation` (B, K), `patches`
    (B, 2, N, 3, P, P) and `position` (B, N), with images in [0, 1] or uint8. The last three are needed only for their
    tasks. A task of weight 0 is not computed at all.

    With one distribution (`transforms.strong.Identity`) and without both tasks, this is SimCLR (Chen et al., ICML
    2020).

    Training also works with a plain DataLoader of such batches (`Trainer.fit(CCD(...), DataLoader(...))`).
    `EncoderPretraining` describes what is omitted then.

    Args:
        encoder: The encoder's initial weights, and how they are fine-tuned.
        distributions: K, the number of strong augmentations of the family. None uses the number of the data module's
            family, or 4 if there is no data module that gives it. A number that differs from the family's is refused.
        temperature: Temperature of the contrastive loss.
        contrastive_weight: Weight w_con of the contrastive loss. The loss is logged even if the weight is 0, because it
            shows collapse.
        augmentation_weight: Weight w_cla of predicting the strong augmentation of an instance.
        position_weight: Weight w_pos of predicting where a patch lies relative to another one.
        optimizer: Creates the optimiser from the parameters.
        warmup_steps: Optimiser steps over which the learning rate rises. Without warm-up, random weights may collapse.
        schedule: Whether the cosine schedule is updated every "step" or, as published, every "epoch".
    """

    augmentation: AugmentationHead

    def __init__(
        self,
        encoder: TrainedEncoderConfig = TrainedEncoderConfig(),
        distributions: int | None = None,
        temperature: float = 0.2,
        contrastive_weight: float = 1.0,
        augmentation_weight: float = 1.0,
        position_weight: float = 1.0,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-4),
        warmup_steps: int = 30,
        schedule: Literal["step", "epoch"] = "step",
    ) -> None:
        tasks = {"augmentation": augmentation_weight, "position": position_weight}
        weights = {"contrastive": contrastive_weight} | {name: weight for name, weight in tasks.items() if weight}
        if not any(weights.values()):
            raise UserError(
                "model.contrastive_weight, model.augmentation_weight and model.position_weight are all 0, so nothing"
                " would be learned. Give one of them another value."
            )
        super().__init__(encoder, weights, optimizer, warmup_steps, schedule)
        self.save_hyperparameters(ignore=["optimizer", "encoder"])
        above("model.temperature", temperature, 0)
        self.temperature = temperature
        self.projection = ProjectionHead(self.encoder.features_size)
        self.distributions_given = distributions
        self._make_head(4 if distributions is None else distributions)
        self.position = PositionHead(self.encoder.features_size).requires_grad_("position" in self.weights)

    def take_data(self, data: NormalImages, stage: str) -> None:
        """Creates the augmentation head for the number of strong augmentations of the data.

        Args:
            data: The data module.
            stage: Stage of Lightning. A fit needs exactly the given number of augmentations; in a test, some classes
                may be unused.

        Raises:
            UserError: If the given number differs, or positions are to be learned but no patches are drawn.
        """
        if data.position_pairs == 0 and "position" in self.weights:
            raise UserError(
                f"model.position_weight is {self.weights['position']}, but data.views.pairs is 0. Give"
                " --data.views.pairs 1 or more, or --model.position_weight 0."
            )
        given, count = self.distributions_given, data.distributions
        if count is None:
            return
        if given is not None and (given != count if stage == "fit" else given < count):
            raise UserError(
                f"model.distributions is {given}, but data.views.family has {count} strong augmentations. Leave"
                " model.distributions out: it follows from the family."
            )
        self._make_head(given or count)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Creates the augmentation head with the size that it has in the checkpoint.

        Raises:
            UserError: If the number of strong augmentations of the data differs.
        """
        super().on_load_checkpoint(checkpoint)
        rename_tensors(checkpoint["state_dict"])
        kept, data = len(checkpoint["state_dict"]["augmentation.weight"]), find_normal_images(self._trainer)
        count = data.distributions if data else None
        if count is not None and (count != kept if self.trainer.state.fn == "fit" else count > kept):
            raise UserError(
                f"The checkpoint was trained with {kept} strong augmentations, but data.views.family has {count}. Give"
                " the family that it was trained with."
            )
        self._make_head(kept)

    def _make_head(self, count: int) -> None:
        """Creates the augmentation head, unless it already has this size."""
        at_least("model.distributions", count, 1)
        self.hparams["distributions"] = count
        if not hasattr(self, "augmentation") or self.augmentation.out_features != count:
            head = AugmentationHead(self.encoder.features_size, count).to(self.device)
            self.augmentation = head.requires_grad_("augmentation" in self.weights)

    def losses(self, batch: dict[str, Tensor], across_ranks: bool = False) -> dict[str, Tensor]:
        """Computes the losses, the accuracies, and the measures of collapse.

        Args:
            batch: Batch of `PretextViews`, with images in [0, 1].
            across_ranks: Whether instances are contrasted with those of all ranks; then every rank must call this
                method. Losses are weighted by the rank's share of the images, so that the mean over ranks of each loss,
                and of its gradient, equals that of one process with all images.

        Returns:
            Scalars by name. Tasks of weight 0 have neither loss nor accuracy.
        """
        views = batch["views"].transpose(0, 1)  # (2, B, K, 3, S, S)
        features = self.encoder.features(views.flatten(0, 2))  # (2BK, F): batch norm sees all views
        projections = self.project(features, batch)  # (2BK, 128)
        own = torch.cat(self.contrasted(projections, batch).chunk(2), dim=1)  # (BK, 2 * 128): both views of an instance
        own = own.to(torch.promote_types(own.dtype, torch.float32))  # dtype in which ranks sum gradients
        instances = gather_rows(own) if across_ranks else own
        share = len(own) * (world_size() if across_ranks else 1) / len(instances)
        first, second = instances.chunk(2, dim=1)
        answers: dict[str, tuple[Tensor, Tensor]] = {}  # logits and classes of each task
        if "augmentation" in self.weights:
            answers["augmentation"] = self.augmentation(features), view_classes(batch)  # (2BK, K), (2BK,)
        if "position" in self.weights:
            patches = self.encoder.features(batch["patches"].transpose(0, 1).flatten(0, 2))  # (2BN, F)
            answers["position"] = self.position(*patches.chunk(2)), batch["position"].flatten()  # (BN, 8), (BN,)
        return {
            "contrastive": self.contrast(first, second, batch, across_ranks),
            **{name: share * value for name, value in self.constraints(features, projections, batch).items()},
            **{name: share * functional.cross_entropy(*answer) for name, answer in answers.items()},
            **{f"{name}_accuracy": share * accuracy(*answer) for name, answer in answers.items()},
            "projection_std": feature_std(torch.cat([first, second])),
            "feature_std": feature_std(features),
            "alignment": alignment(first.detach(), second.detach()),
            "uniformity": uniformity(torch.cat([first, second]).detach()),
        }

    def project(self, features: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Returns the projections (2BK, 128) of the features (2BK, F) of all views."""
        return cast(Tensor, self.projection(features))

    def contrasted(self, projections: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Returns the vectors to contrast, from projections (2BK, 128) of the same shape; here the projections."""
        return projections

    def contrast(self, first: Tensor, second: Tensor, batch: dict[str, Tensor], across_ranks: bool) -> Tensor:
        """Returns the contrastive loss of the first and second views (N, 128) of the instances of this or all ranks."""
        return nt_xent(first, second, self.temperature)

    def constraints(self, features: Tensor, projections: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns additional losses by name: means over this process's features (2BK, F) or projections (2BK, 128)."""
        return {}

    @property
    def needs_classes(self) -> bool:
        """Whether batches must contain the strong augmentation of each instance."""
        return "augmentation" in self.weights

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Performs one training step.

        Raises:
            UserError: If the first batch of an epoch lacks a tensor that is needed, or has an augmentation class
                outside the range of the augmentation head.
        """
        if batch_idx == 0:
            self._check_batch(batch)
        return super().training_step(batch, batch_idx)

    def _check_batch(self, batch: dict[str, Tensor]) -> None:
        needed = ["views", *(["augmentation"] if self.needs_classes else [])]
        needed += ["patches", "position"] if "position" in self.weights else []
        if missing := [name for name in needed if name not in batch]:
            raise UserError(
                f"A batch has no {' and no '.join(missing)}: give --data.views"
                " ccd_lightning.transforms.pretext.PretextViews, or in Python a DataLoader of what it draws, with weak"
                " views made on the cpu. A task of weight 0 needs nothing."
            )
        if "augmentation" in needed and (label := int(batch["augmentation"].max())) >= self.hparams["distributions"]:
            raise UserError(
                f"A batch has the augmentation class {label}, counted from 0, but model.distributions is"
                f" {self.hparams['distributions']}: give the number of the family's strong augmentations."
            )


def view_classes(batch: dict[str, Tensor]) -> Tensor:
    """Returns the strong augmentation of each view, (2BK,), in the order of the features: view, image, distribution."""
    return batch["augmentation"].flatten().repeat(2)


def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Returns the accuracy: the share of rows of logits (N, C) with their maximum at the target (N,)."""
    return (logits.argmax(dim=1) == target).float().mean()
