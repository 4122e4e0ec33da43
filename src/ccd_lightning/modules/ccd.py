"""CCD, the pretraining of an encoder on normal images alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.functional.classification import binary_auroc

from ccd_lightning.checkpoints import EncoderConfig, build_encoder, initialise_encoder, rename_older_tensors
from ccd_lightning.distributed import gather_ranks, gather_rows, world_size
from ccd_lightning.errors import UserError
from ccd_lightning.losses.contrastive import alignment, nt_xent, uniformity
from ccd_lightning.models.batchnorm import batch_statistics, calibrate
from ccd_lightning.models.gaussian import FeatureProbe
from ccd_lightning.models.heads import AugmentationHead, PositionHead, ProjectionHead, spread
from ccd_lightning.modules.schedule import cosine_with_warmup
from ccd_lightning.transforms.patches import tiles

if TYPE_CHECKING:
    from ccd_lightning.data.datamodule import AnomalyDataModule

CALIBRATED = (
    256  # training images: means and variances over all of their pixels are known well, and each norm takes a pass
)


class CCD(LightningModule):
    """Constrained contrastive distribution learning (Tian et al., MICCAI 2021).

        L = w_con L_con + w_cla L_cla + w_pos L_pos

    Batches hold what `PretextViews` draws: `views` (B, 2, K, 3, S, S), `augmentation` (B, K), `patches`
    (B, 2, N, 3, P, P) and `position` (B, N), images in [0, 1].

    Args:
        encoder: Where the weights to start from come from.
        distributions: K, how many strong augmentations the family has. None takes the number of the data module's
            family, or 4 where the data do not tell; another number than the family's is refused.
        temperature: Of the contrastive loss.
        contrastive_weight: w_con.
        augmentation_weight: w_cla, of predicting which strong augmentation an instance got.
        position_weight: w_pos, of predicting where a patch lies relative to another one.
        optimizer: Makes the optimiser from the parameters.
        warmup_steps: Optimiser steps over which the learning rate rises; it keeps random weights from collapsing.
        schedule: Whether the cosine falls with each "step" or, as published, with each "epoch".
    """

    augmentation: AugmentationHead

    def __init__(
        self,
        encoder: EncoderConfig = EncoderConfig(),  # noqa: B008  (jsonargparse reads the default)
        distributions: int | None = None,
        temperature: float = 0.2,
        contrastive_weight: float = 1.0,
        augmentation_weight: float = 1.0,
        position_weight: float = 1.0,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-4),
        warmup_steps: int = 30,
        schedule: Literal["step", "epoch"] = "step",
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["optimizer", "encoder"])
        self.make_optimizer = optimizer
        self.encoder_config, self.encoder = build_encoder(encoder)
        self.encoder.to(memory_format=torch.channels_last)  # a tenth faster on CPUs, more on GPUs
        self.hparams["encoder"] = self.encoder.settings()
        self.projection = ProjectionHead(self.encoder.features_size)
        self.distributions_given = distributions
        self._make_head(4 if distributions is None else distributions)
        self.position = PositionHead(self.encoder.features_size)
        self.probe = FeatureProbe()

    def setup(self, stage: str) -> None:
        """Takes over the data's K and the weights to start from, and has batch norm see all GPUs' images."""
        self.take_distributions(self._data_distributions, stage)
        if stage != "fit":
            return
        self.encoder_sources = {"encoder": initialise_encoder(self.encoder, self.encoder_config)}
        if self._trainer is None or self.trainer.world_size == 1:
            return
        if self.trainer.strategy.root_device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(self)  # type: ignore[no-untyped-call]
        else:
            rank_zero_warn("Off the GPU, batch normalisation sees each process's own images, not those of all.")

    def take_distributions(self, count: int | None, stage: str) -> None:
        """Makes the augmentation head for as many strong augmentations as the data have.

        Args:
            count: Their number; None where the data do not tell.
            stage: Of Lightning. Only a fit needs exactly the number that was given: in a test, a class may be unused.

        Raises:
            UserError: If another number was given.
        """
        given = self.distributions_given
        if count is None:
            return
        if given is not None and (given != count if stage == "fit" else given < count):
            raise UserError(
                f"model.distributions is {given}, but data.views.family has {count} strong augmentations. Leave"
                " model.distributions out: it follows from the family."
            )
        self._make_head(given or count)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Makes the augmentation head as large as the checkpoint's.

        Raises:
            UserError: If the data have another number of strong augmentations.
        """
        rename_older_tensors(checkpoint["state_dict"])
        kept, count = len(checkpoint["state_dict"]["augmentation.weight"]), self._data_distributions
        if count is not None and (count != kept if self.trainer.state.fn == "fit" else count > kept):
            raise UserError(
                f"The checkpoint was trained with {kept} strong augmentations, but data.views.family has {count}. Give"
                " the family that it was trained with."
            )
        self._make_head(kept)

    def _make_head(self, count: int) -> None:
        """Makes the augmentation head anew, unless it is of this size already."""
        if count < 1:
            raise UserError(f"model.distributions is {count}, but must be 1 or more.")
        self.hparams["distributions"] = count
        if not hasattr(self, "augmentation") or self.augmentation.out_features != count:
            self.augmentation = AugmentationHead(self.encoder.features_size, count).to(self.device)

    @property
    def _data_distributions(self) -> int | None:
        """How many strong augmentations the data module has; None without one that tells."""
        data = None if self._trainer is None else getattr(self.trainer, "datamodule", None)
        return getattr(data, "distributions", None)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, F) of images (B, 3, H, W) in [0, 1]."""
        return self.encoder.features(images)

    def losses(self, batch: dict[str, Tensor], across_ranks: bool = False) -> dict[str, Tensor]:
        """The three losses, the two accuracies, and what tells of collapse.

        Args:
            batch: What `PretextViews` draws.
            across_ranks: Whether instances are contrasted with those of all ranks, every one of which must then call
                this. The mean over ranks of each loss, and of its gradient, is that of one process with all of the
                images: its own share counts by how many there are.
        """
        views = batch["views"].transpose(0, 1)  # (2, B, K, 3, S, S)
        features = self.encoder.features(views.flatten(0, 2))  # (2BK, F): batch norm sees all views
        own = torch.cat(self.projection(features).chunk(2), dim=1)  # (BK, 2 * 128): both views of an instance
        own = own.to(torch.promote_types(own.dtype, torch.float32))  # gradients are summed over ranks in this
        instances = gather_rows(own) if across_ranks else own
        share = len(own) * (world_size() if across_ranks else 1) / len(instances)
        first, second = instances.chunk(2, dim=1)
        augmentation = batch["augmentation"].flatten().repeat(2)  # (2BK,), as features: view, image, distribution
        logits = self.augmentation(features)  # (2BK, K)
        patches = self.encoder.features(batch["patches"].transpose(0, 1).flatten(0, 2))  # (2BN, F)
        position = batch["position"].flatten()  # (BN,)
        position_logits = self.position(*patches.chunk(2))  # (BN, 8)
        return {
            "contrastive": nt_xent(first, second, self.hparams["temperature"]),
            "augmentation": share * functional.cross_entropy(logits, augmentation),
            "position": share * functional.cross_entropy(position_logits, position),
            "augmentation_accuracy": share * accuracy(logits, augmentation),
            "position_accuracy": share * accuracy(position_logits, position),
            "spread": spread(torch.cat([first, second])),
            "feature_spread": spread(features),
            "alignment": alignment(first.detach(), second.detach()),
            "uniformity": uniformity(torch.cat([first, second]).detach()),
        }

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum that is minimised."""
        return torch.stack(
            [self.hparams[f"{name}_weight"] * losses[name] for name in ("contrastive", "augmentation", "position")]
        ).sum()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One step of pretraining.

        Raises:
            UserError: If the first batch of an epoch has a class that the augmentation head has not.
        """
        if batch_idx == 0 and (label := int(batch["augmentation"].max())) >= self.hparams["distributions"]:
            raise UserError(
                f"A batch has the augmentation class {label}, counted from 0, but model.distributions is"
                f" {self.hparams['distributions']}: give the number of the family's strong augmentations."
            )
        return self._step(batch, "train")

    def on_validation_epoch_start(self) -> None:
        """Calibrates the encoder for whole images, or tiles, so that every checkpoint's is ready to use."""
        if self.trainer.state.fn == "fit":
            self._calibrate()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """The same quantities on held-out normal images, whose views are the same every time."""
        with batch_statistics(self):
            self._step(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Probes how well the features tell held-out images from their own strongly augmented versions."""
        if self.trainer.state.fn == "fit":
            probed = {f"val/probe_{name}": value for name, value in self._probe_held_out().items()}
            self.log_dict(probed, sync_dist=True)

    @torch.no_grad()
    def _probe_held_out(self) -> dict[str, float]:
        """AUROC of the distances from the training images' Gaussian, and how many nats they lie apart in the mean.

        Held-out images are the normal ones, their strongly augmented versions stand for what is not: no label is read.
        """
        if not self._fit_probe():
            return {}
        probed = [(self.probe(self(images)), index) for images, index in self._data.held_out_distributions(self.device)]
        if not probed or self.hparams["distributions"] == 1:
            return {}
        distance, index = (torch.cat(parts) for parts in zip(*probed, strict=True))
        nats = distance.log()
        return {
            "auroc": float(binary_auroc(distance / distance.max(), (index > 0).long())),  # beyond 1 it squashes
            "separation": float(nats[index > 0].mean() - nats[index == 0].mean()),
        }

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Pretext accuracies on the normal test images, and the probe's scores of all of them."""
        normal = batch["label"] == 0
        if normal.any():
            names = ("views", "augmentation", "patches", "position")
            with batch_statistics(self):
                losses = self.losses({name: batch[name][normal] for name in names})
            self._pretext.append((int(normal.sum()), {name: float(value) for name, value in losses.items()}))
        with torch.autocast(self.device.type, enabled=False):  # as when the probe was fitted
            return {"scores": self._distances(batch["image"])}

    def on_test_epoch_end(self) -> None:
        """Averages the pretext tasks over all ranks' normal images, of which a rank may have had none."""
        seen = [batch for share in gather_ranks(self._pretext) for batch in share]
        total = sum(count for count, _ in seen)
        for name in seen[0][1] if seen else ():
            mean = sum(count * values[name] for count, values in seen) / total
            self.log(f"test/{name}", mean, sync_dist=True)  # the same on every rank

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Refuses: an encoder alone decides nothing about an image."""
        raise UserError(
            "This run pretrained an encoder, which scores no images. Fit a detector on it: ccd fit --config"
            " configs/padim_folder.yaml --data.root DIR --model.encoder.weights RUN"
        )

    def on_test_start(self) -> None:
        """Fits the probe: a Gaussian of the training images' features, its threshold from the held-out ones."""
        self._pretext: list[tuple[int, dict[str, float]]] = []
        if not self._fit_probe():
            raise UserError("This run's features are not numbers: its training broke down. Fit it again, more slowly.")
        self.normal_scores = torch.cat([self._distances(images) for images in self._data.normal_images(self.device)[1]])
        self.threshold = torch.quantile(self.normal_scores, 0.95)

    @property
    def _data(self) -> AnomalyDataModule:
        data: AnomalyDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    def _shown(self, images: Tensor) -> Tensor:
        """What the encoder is for: the images (B, 3, H, W), or all of their tiles."""
        return tiles(images, self._data.tile) if self._data.tile else images

    def _train_images(self, at_most: int | None = None) -> Iterator[Tensor]:
        """This rank's share of the training images, or of their tiles, batch by batch."""
        ranks = self.global_rank, self.trainer.world_size
        return map(self._shown, self._data.normal_images(self.device, *ranks, at_most)[0])

    def _calibrate(self) -> None:
        """Takes the encoder's running statistics from training images of all ranks, the same ones each time."""

        def add_up(sums: Tensor) -> Tensor:
            return torch.as_tensor(self.trainer.strategy.reduce(sums, reduce_op="sum"))

        calibrate(self.encoder, lambda: self._train_images(CALIBRATED), add_up)

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
        losses = self.losses(batch, across_ranks=True)
        loss = self.total(losses)
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
        """The optimiser with warm-up and cosine."""
        optimizer = self.make_optimizer(self.parameters())
        total, warmup = self.trainer.estimated_stepping_batches, self.hparams["warmup_steps"]
        if not math.isfinite(total):
            raise UserError("The learning rate falls until training ends: give --trainer.max_epochs or .max_steps.")
        every = 1
        if self.hparams["schedule"] == "epoch":
            self.trainer.fit_loop.setup_data()  # which tells how many batches an epoch has
            every = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: cosine_with_warmup(step, int(total), warmup, every=every)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Share of the rows of logits (N, C) whose largest entry is at the target (N,)."""
    return (logits.argmax(dim=1) == target).float().mean()
