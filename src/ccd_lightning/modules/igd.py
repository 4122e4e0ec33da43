"""IGD, a detector that reconstructs, at two scales."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from ccd_lightning.errors import UserError
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.modules.handover import EncoderConfig, initialise_encoder
from ccd_lightning.modules.igd_scale import Descriptor, Scale, Training, WindowScale
from ccd_lightning.modules.ranks import gather_batch
from ccd_lightning.transforms.patches import coverage, fold_windows, tiles, windows

if TYPE_CHECKING:
    from ccd_lightning.data.datamodule import AnomalyDataModule


class IGD(OneClassDetector):
    """Interpolated Gaussian descriptor (Chen, Tian et al., AAAI 2022) on CCD's encoders.

    The global scale looks at whole images, the local one through windows; both are trained and scored side by side.

        score = w_global ((1 - g) error + g s) + w_local max over windows ((1 - g') error' + g' s')

    with the error of the reconstruction and s of the Gaussian classifier (`losses.igd`).

    Args:
        encoder: Where the weights of the global scale's encoder come from.
        local_encoder: Where those of the local scale's encoder come from.
        global_scale: What the global scale looks at, and its weights; its size is that of the images.
        local_scale: What the local scale looks at, and its weights.
        training: The loss's weights and what else concerns training alone.
        latent_size: D, how many numbers an image or a window is described by.
        optimizer: Makes the optimiser from two groups of parameters, of which the second, the critics', has no weight
            decay. Its learning rate falls to 0 as a polynomial of power 0.9.
        quantile: Share of the held-out normal images whose score is at most the threshold.
    """

    def __init__(
        self,
        encoder: EncoderConfig = EncoderConfig(),  # noqa: B008  (jsonargparse reads the defaults)
        local_encoder: EncoderConfig = EncoderConfig(),  # noqa: B008
        global_scale: Scale = Scale(),  # noqa: B008
        local_scale: WindowScale = WindowScale(),  # noqa: B008
        training: Training = Training(),  # noqa: B008
        latent_size: int = 128,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.Adam(
            parameters, lr=1e-4, betas=(0.0, 0.9), weight_decay=1e-6
        ),
        quantile: float = 0.95,
    ) -> None:
        super().__init__(encoder, quantile)
        self.save_hyperparameters(ignore=["encoder", "local_encoder", "optimizer"])
        # A checkpoint holds them as plain values, which is what `load` gives.
        whole = Scale(**global_scale) if isinstance(global_scale, dict) else global_scale
        local = WindowScale(**local_scale) if isinstance(local_scale, dict) else local_scale
        self.settings = Training(**training) if isinstance(training, dict) else training
        self.hparams.update(global_scale=asdict(whole), local_scale=asdict(local), training=asdict(self.settings))
        if min(whole.weight, local.weight) < 0 or whole.weight + local.weight == 0:
            raise UserError("model.global_scale.weight and model.local_scale.weight must be 0 or more, not both 0.")
        if local.stride < 1 or (whole.size - local.size) % local.stride or local.size > whole.size:
            raise UserError(
                f"model.local_scale: windows of {local.size} px every {local.stride} px do not end where images of"
                f" {whole.size} px do."
            )
        self.local_encoder_config = local_encoder
        self.local_encoder = Encoder()
        self.whole = Descriptor(whole, latent_size, "global_scale")
        self.local = Descriptor(local, latent_size, "local_scale")
        self.windows = local
        self.make_optimizer = optimizer
        self.train()

    def setup(self, stage: str) -> None:
        """Takes over the encoders, and leaves out of training what is not to be trained."""
        if stage != "fit":
            return
        self.requires_grad_(False)
        sources = []
        for descriptor, encoder in self._scales():
            config = self.encoder_config if descriptor is self.whole else self.local_encoder_config
            sources.append(f"{descriptor.name} {initialise_encoder(encoder, config)}")
            encoder.requires_grad_(self.settings.fine_tune)
            descriptor.requires_grad_(True)
            descriptor.critic.requires_grad_(self.settings.interpolation > 0)
        self.encoder_source = ", ".join(sources)

    def _scales(self) -> Iterator[tuple[Descriptor, Encoder]]:
        """The scales that are used, with their encoders."""
        for pair in ((self.whole, self.encoder), (self.local, self.local_encoder)):
            if pair[0].settings.weight:
                yield pair

    def train(self, mode: bool = True) -> IGD:
        """Keeps the encoders' batch normalisation as pretraining left it."""
        super().train(mode)
        self.encoder.eval()
        self.local_encoder.eval()
        return self

    def score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted sums of both scales' scores and maps."""
        self._check_size(images)
        scores, maps = images.new_zeros(len(images)), torch.zeros_like(images[:, 0])
        for descriptor, encoder in self._scales():
            parts = descriptor.score(encoder, images) if descriptor is self.whole else self.score_windows(images)
            scores, maps = (
                total + descriptor.settings.weight * part for total, part in zip((scores, maps), parts, strict=True)
            )
        return scores, maps

    def score_windows(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The local scale: the highest of the windows' scores (B,), and their maps averaged where they overlap."""
        side, stride = self.windows.size, self.windows.stride
        grid = windows(images, side, stride)  # (B, rows, columns, C, side, side)
        at_once = max(1, self.windows.chunk // (grid.shape[1] * grid.shape[2]))
        scores, maps = zip(*(self._score_grid(part) for part in torch.split(grid, at_once)), strict=True)
        across = coverage(images.shape[-1], side, stride).to(images)
        return torch.cat(scores), torch.cat(maps) / (across[:, None] * across)

    def _score_grid(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B,) and sums of maps (B, H, W) of windows (B, rows, columns, C, side, side), some rows at once."""
        (count, rows, columns), stride = grid.shape[:3], self.windows.stride
        maps = grid.new_zeros(count, self.whole.settings.size, self.whole.settings.size)
        at_once = max(1, self.windows.chunk // (count * columns))
        highest = []
        for top, block in zip(range(0, rows, at_once), torch.split(grid, at_once, dim=1), strict=True):
            scores, parts = self.local.score(self.local_encoder, block.flatten(0, 2))
            highest.append(scores.view(count, -1).amax(dim=1))
            strip = fold_windows(parts.view(*block.shape[:3], *parts.shape[1:]), stride)
            maps[:, top * stride : top * stride + strip.shape[1]] += strip
        return torch.stack(highest).amax(dim=0), maps

    def _check_size(self, images: Tensor) -> None:
        size = self.whole.settings.size
        if images.shape[-2:] != (size, size):
            raise UserError(
                f"Images of {images.shape[-1]} x {images.shape[-2]} px do not go with this detector of {size} px: give"
                f" --data.size {size}, or fit one with --model.global_scale.size {images.shape[-1]}."
            )

    def on_train_epoch_start(self) -> None:
        """Estimates centre and scale of the latents, every so many epochs."""
        if self.current_epoch % self.settings.estimate_every == 0:
            for descriptor, encoder in self._scales():
                self._estimate(descriptor, encoder)

    @torch.no_grad()
    def _estimate(self, descriptor: Descriptor, encoder: Encoder) -> None:
        """Fits the Gaussian to the training images, or all of their tiles, which the ranks share."""

        def latents() -> Iterator[Tensor]:
            batches = self._data.normal_images(self.device)[0]
            for images in itertools.islice(batches, self.global_rank, None, self.trainer.world_size):
                shown = images if descriptor is self.whole else tiles(images, self.windows.size)
                for some in torch.split(shown, self.windows.chunk):
                    yield descriptor.latent(encoder.features(some))

        descriptor.gaussian.fit(latents, lambda total: self._reduce(total, "sum"))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """One step of all nets of both scales."""
        images = batch["image"]
        self._check_size(images)
        everyone, own = gather_batch(images.new_zeros(len(images), 1))
        # What is drawn depends on an image's place in the batch of all ranks, and on nothing that came before.
        rng = np.random.default_rng((self._data.seed, self.current_epoch, batch_idx))
        terms: dict[str, Tensor] = {}
        for descriptor, encoder in self._scales():
            shown, drawn = self._draw(descriptor, images, rng, len(everyone), own)
            alpha = torch.from_numpy(rng.uniform(0, 0.5, (len(everyone), drawn))).to(images)[own].flatten()
            interpolate = alpha if self.settings.interpolation else None
            losses = descriptor.losses(encoder, shown, interpolate, partial(_partners, own=own))
            terms |= {f"{descriptor.name}/{name}": value for name, value in losses.items()}
        share = len(own) * self.trainer.world_size / len(everyone)  # the mean over ranks is that of all images
        loss = share * torch.stack([self._weights[name.split("/")[1]] * term for name, term in terms.items()]).sum()
        means = self._reduce(torch.stack([loss.detach(), *(share * term.detach() for term in terms.values())]), "mean")
        self.log_dict(dict(zip((f"train/{name}" for name in ("loss", *terms)), means, strict=True)), batch_size=1)
        in_bar = self.device.type == "cpu"  # which a GPU would have to wait for
        self.log("train_loss", means[0], batch_size=1, prog_bar=in_bar, logger=False)
        return loss

    def _draw(
        self, descriptor: Descriptor, images: Tensor, rng: np.random.Generator, total: int, own: Tensor
    ) -> tuple[Tensor, int]:
        """What a scale is shown of images that are at the places `own` in a batch of `total`, and how many of each."""
        if descriptor is self.whole:
            return images, 1
        grid = windows(images, self.windows.size, self.windows.stride)  # (B, rows, columns, C, side, side)
        (_, rows, columns), drawn = grid.shape[:3], self.windows.drawn
        place = torch.from_numpy(rng.integers(rows * columns, size=(total, drawn))).to(images.device)[own]  # (B, drawn)
        image = torch.arange(len(images), device=images.device)[:, None]
        return grid[image, place // columns, place % columns].flatten(0, 1), drawn

    @property
    def _weights(self) -> dict[str, float]:
        settings = self.settings
        return {
            "reconstruction": 1.0,
            "gaussian": settings.gaussian,
            "interpolation": settings.interpolation,
            "critic": 1.0,
        }

    def _reduce(self, value: Tensor, how: str) -> Tensor:
        return torch.as_tensor(self.trainer.strategy.reduce(value, reduce_op=how))

    @property
    def _data(self) -> AnomalyDataModule:
        data: AnomalyDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    def configure_optimizers(self) -> Any:
        """One optimiser with two groups, which is as good as two, and the polynomial."""
        trained = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        critics = [parameter for name, parameter in trained.items() if ".critic." in name]
        others = [parameter for name, parameter in trained.items() if ".critic." not in name]
        optimizer = self.make_optimizer([{"params": others}, {"params": critics, "weight_decay": 0.0}])
        total = self.trainer.estimated_stepping_batches
        if not math.isfinite(total):
            raise UserError("The learning rate falls until training ends: give --trainer.max_epochs or .max_steps.")
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=int(total), power=0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _partners(latent: Tensor, own: Tensor) -> Tensor:
    """Of each latent in the batch of all ranks the one as far from its end.

    Args:
        latent: (B n, D), n of each of this rank's images.
        own: Places of this rank's images in the batch of all ranks, (B,).
    """
    everyone = gather_batch(latent.reshape(len(own), -1))[0]  # (all images, n D)
    flipped = everyone.view(-1, latent.shape[1]).flip(0).view_as(everyone)
    return flipped[own].view_as(latent)
