"""IGD: a reconstruction-based detector with two scales."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.distributed import batch_places
from ccd_lightning.encoder_config import EncoderConfig, build_encoder, initialise_encoder
from ccd_lightning.errors import UserError
from ccd_lightning.models.content import mirrored_boxes, unless_whole
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.igd.descriptor import Descriptor
from ccd_lightning.models.igd.latents import partners
from ccd_lightning.models.igd.settings import Scale, Training, WindowScale, check, check_image_size, plain
from ccd_lightning.models.igd.windows import WindowDescriptor
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.modules.normal_images import NormalImages, require_normal_images
from ccd_lightning.modules.schedule import build_optimizer, check_optimizer, planned_steps, polynomial
from ccd_lightning.ranges import at_least


class IGD(OneClassDetector):
    """Interpolated Gaussian descriptor (Chen, Tian et al., AAAI 2022) on CCD's encoders.

    The global scale uses whole images, the local scale uses windows. Both are trained and scored together:

        score = w_global ((1 - g) error + g s) + w_local max over windows ((1 - g') error' + g' s')

    with the reconstruction error and the score s of the Gaussian classifier (`losses.igd`). s slightly exceeds 1 where
    the published score is 1 because of rounding.

    Args:
        encoder: Weights of the global scale's encoder.
        local_encoder: Weights of the local scale's encoder.
        global_scale: Settings of the global scale; its size is that of the images.
        local_scale: Settings of the local scale.
        training: Weights of the loss, and other settings that only affect training.
        latent_size: D, the number of dimensions of the latent of an image or a window.
        whitened: Whether latents are the leading principal components of the encoder's features, each with variance 1,
            so that s is about a Mahalanobis distance. false learns a linear layer, as published.
        optimizer: Creates the optimiser from two groups of parameters. The second group, the critics', has no weight
            decay. The learning rate falls to 0 as a polynomial of power 0.9.
        quantile: The threshold is this quantile of the scores of held-out normal images.
    """

    score_settings = tuple(
        f"{scale}.{name}"
        for scale in ("global_scale", "local_scale")
        for name in ("weight", "gaussian", "structure", "ssim_window", "ssim_weights", "stride")
    )

    def __init__(
        self,
        encoder: EncoderConfig = EncoderConfig(),
        local_encoder: EncoderConfig = EncoderConfig(),
        global_scale: Scale = Scale(),
        local_scale: WindowScale = WindowScale(),
        training: Training = Training(),
        latent_size: int = 128,
        whitened: bool = False,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.Adam(
            parameters, lr=1e-4, betas=(0.0, 0.9), weight_decay=1e-6
        ),
        quantile: float = 0.95,
    ) -> None:
        super().__init__(encoder, quantile)
        self.save_hyperparameters(ignore=["encoder", "local_encoder", "optimizer"])
        # Copies the settings; `load` passes plain values from a checkpoint instead.
        self.global_scale = Scale(**plain(global_scale))
        self.local_scale = WindowScale(**plain(local_scale))
        self.training_settings = Training(**plain(training))
        self.hparams.update(
            global_scale=asdict(self.global_scale),
            local_scale=asdict(self.local_scale),
            training=asdict(self.training_settings),
        )
        check(self.global_scale, self.local_scale, self.training_settings)
        at_least("model.latent_size", latent_size, 1)
        check_optimizer(optimizer)
        self.local_encoder_config, self.local_encoder = build_encoder(local_encoder)
        self.hparams.update(encoder=self.encoder.settings(), local_encoder=self.local_encoder.settings())
        components = min(self.encoder.features_size, self.local_encoder.features_size)
        if whitened and latent_size > components:
            raise UserError(
                f"model.latent_size is {latent_size}, but must be {components} or less with model.whitened: the"
                " features have no more components."
            )
        whole, local = self.encoder.features_size, self.local_encoder.features_size
        self.whole = Descriptor(self.global_scale, whole, latent_size, "global_scale", whitened)
        self.local = WindowDescriptor(self.local_scale, local, latent_size, "local_scale", whitened)
        self.make_optimizer = optimizer
        self.train()

    def setup(self, stage: str) -> None:
        """Initialises the encoders for a fit, and freezes everything that is not trained."""
        if stage != "fit":
            return
        self.requires_grad_(False)
        configs = {
            self.whole.name: (self.encoder_config, "encoder"),
            self.local.name: (self.local_encoder_config, "local_encoder"),
        }
        self.encoder_sources = {}
        for descriptor, encoder in self._scales():
            config, option = configs[descriptor.name]
            self.encoder_sources[option] = initialise_encoder(encoder, config, f"model.{option}")
            encoder.requires_grad_(self.training_settings.fine_tune)
            descriptor.requires_grad_(True)
            descriptor.latent.requires_grad_(not descriptor.whitened)
            descriptor.critic.requires_grad_(self.training_settings.interpolation > 0)

    def _scales(self) -> Iterator[tuple[Descriptor, Encoder]]:
        """Yields the scales with a positive weight, with their encoders."""
        for pair in ((self.whole, self.encoder), (self.local, self.local_encoder)):
            if pair[0].settings.weight:
                yield pair

    @property
    def encoders(self) -> list[Encoder]:
        """Encoders of the scales that are used."""
        return [encoder for _, encoder in self._scales()]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises a `UserError` if a scale with a positive weight was not trained."""
        super().on_load_checkpoint(checkpoint)
        for name, descriptor in (("whole", self.whole), ("local", self.local)):
            if descriptor.settings.weight and checkpoint["state_dict"][f"{name}.gaussian.scale"].isnan():
                raise UserError(
                    f"The checkpoint's {descriptor.name} was not trained: leave --model.{descriptor.name}.weight at 0,"
                    " or fit the detector again."
                )

    def train(self, mode: bool = True) -> IGD:
        """Keeps the encoders in eval mode, so that their batch normalisation statistics do not change."""
        super().train(mode)
        self.encoder.eval()
        self.local_encoder.eval()
        return self

    def score(self, images: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the weighted sums of the scores and maps of both scales."""
        check_image_size(images.shape[-2:], self.global_scale)
        scores, maps = images.new_zeros(images.shape[0]), torch.zeros_like(images[:, 0])
        for descriptor, encoder in self._scales():
            weight, (score, surface) = descriptor.settings.weight, descriptor.score(encoder, images, content)
            scores, maps = scores + weight * score, maps + weight * surface
        return scores, maps

    def check_images(self, preprocessing: Preprocessing, device: torch.device, processes: int) -> None:
        """Checks the images, and rejects tiling: a training step would process all tiles of its images at once."""
        if preprocessing.tiling:
            raise UserError("IGD does not learn from tiles: leave out data.tiles, or fit PaDiM or Neighbours with it.")
        super().check_images(preprocessing, device, processes)

    def check_size(self, size: tuple[int, int], option: str) -> None:
        """Checks that images have the size of the global scale, and that the encoders accept the scales' sizes."""
        check_image_size(size, self.global_scale)
        for descriptor, encoder in self._scales():
            encoder.check_size(descriptor.settings.size, f"model.{descriptor.name}.size")

    def on_train_epoch_start(self) -> None:
        """Estimates centre and scale of the latents every `estimate_every` epochs."""
        if self.current_epoch % self.training_settings.estimate_every == 0:
            for descriptor, encoder in self._scales():
                self._estimate(descriptor, encoder)

    @torch.no_grad()
    def _estimate(self, descriptor: Descriptor, encoder: Encoder) -> None:
        """Fits the Gaussian of the latents to the training images or all their windows, divided among the ranks."""

        def features() -> Iterator[Tensor]:
            for images, content in self._data.normal_images(self.device, self.global_rank, self.trainer.world_size)[0]:
                views = descriptor.estimation_views(images, unless_whole(content, images.shape[-2:]))
                for some in torch.split(views, self.local_scale.chunk_size):
                    yield encoder.features(some)

        fine_tuned = self.training_settings.fine_tune
        if warning := descriptor.estimate(features, partial(self._reduce, how="sum"), features_changed=fine_tuned):
            rank_zero_warn(warning)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Performs one training step of the networks of both scales."""
        images = batch["image"]
        check_image_size(images.shape[-2:], self.global_scale)
        content = unless_whole(batch.get("content"), images.shape[-2:])
        total, own = batch_places(images)
        # Random draws depend only on the image's index in the batch of all ranks, not on earlier draws.
        rng = np.random.default_rng((self._data.seed, self.current_epoch, batch_idx))
        if self.training_settings.mirror:
            mirrored = torch.from_numpy(rng.random(total) < 0.5).to(images.device)[own]
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
            content = (
                None
                if content is None
                else torch.where(mirrored[:, None], mirrored_boxes(content, images.shape[-1]), content)
            )
        terms: dict[str, Tensor] = {}
        for descriptor, encoder in self._scales():
            views = descriptor.training_views(images, rng, total, own, content)
            alpha = torch.from_numpy(rng.uniform(0, 0.5, (total, descriptor.views_per_image))).to(images)[own].flatten()
            interpolate = alpha if self.training_settings.interpolation else None
            losses = descriptor.losses(encoder, views, interpolate, partial(partners, own=own))
            terms |= {f"{descriptor.name}/{name}": value for name, value in losses.items()}
        share = len(own) * self.trainer.world_size / total  # makes the mean over ranks that of all images
        loss = share * torch.stack([self._weights[name.split("/")[1]] * term for name, term in terms.items()]).sum()
        means = self._reduce(torch.stack([loss.detach(), *(share * term.detach() for term in terms.values())]), "mean")
        self.log_dict(dict(zip((f"train/{name}" for name in ("loss", *terms)), means, strict=True)), batch_size=1)
        in_bar = self.device.type == "cpu"  # on a GPU, reading the value would force a synchronisation
        self.log("train_loss", means[0], batch_size=1, prog_bar=in_bar, logger=False)
        return loss

    @property
    def _weights(self) -> dict[str, float]:
        settings = self.training_settings
        return {
            "reconstruction": 1.0,
            "gaussian": settings.gaussian,
            "interpolation": settings.interpolation,
            "critic": 1.0,
        }

    def _reduce(self, value: Tensor, how: str) -> Tensor:
        return torch.as_tensor(self.trainer.strategy.reduce(value, reduce_op=how))

    @property
    def _data(self) -> NormalImages:
        return require_normal_images(self.trainer, "IGD")

    def configure_optimizers(self) -> Any:
        """Creates one optimiser with two groups and the polynomial schedule.

        One optimiser is equivalent to two here, because of how `Descriptor.losses` separates the gradients.
        """
        trained = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        critics = [parameter for name, parameter in trained.items() if ".critic." in name]
        others = [parameter for name, parameter in trained.items() if ".critic." not in name]
        groups: list[dict[str, Any]] = [{"params": others, "name": "descriptor"}]
        if critics:
            groups.append({"params": critics, "name": "critic", "weight_decay": 0.0})
        optimizer = build_optimizer(self.make_optimizer, groups)
        falling = partial(polynomial, total=planned_steps(self.trainer))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, falling)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
