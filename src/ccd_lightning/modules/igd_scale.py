"""One of IGD's two scales: the nets on top of an encoder, their losses, and how they score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ccd_lightning.errors import UserError
from ccd_lightning.losses import igd
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.gaussian import LatentGaussian
from ccd_lightning.models.reconstruction import Critic, Decoder


@dataclass
class Scale:
    """What a scale looks at, and how its score and map are weighed.

    Attributes:
        size: Side in pixels of what is reconstructed: 8, 16, ..., 512.
        width: Channels of decoder and critic at the full resolution, a multiple of 8.
        weight: Of the scale's score and map beside the other's; a scale of weight 0 is not trained.
        gaussian: Share of the Gaussian classifier in the score, in [0, 1]; the reconstruction has the rest.
        ssim_window: Side of the windows of similarity in pixels, odd; less where the last level is smaller than that.
        ssim_weights: Weights of the levels of similarity, each of half the resolution of the one before.
        structure: Share of similarity in the reconstruction's error and map, in [0, 1]; |x - x^| has the rest.
    """

    size: int = 256
    width: int = 32
    weight: float = 0.5
    gaussian: float = 0.9
    ssim_window: int = igd.WINDOW
    ssim_weights: tuple[float, ...] = igd.WEIGHTS
    structure: float = igd.STRUCTURE


@dataclass
class WindowScale(Scale):
    """The local scale, which looks through windows.

    Attributes:
        stride: Pixels from one window to the next when an image is scored.
        drawn: Windows of each image in a training step, drawn among those that are scored.
        chunk: The most windows that are scored at once, or the windows in a row where these are more; it bounds memory.
    """

    size: int = 32
    gaussian: float = 0.1
    ssim_window: int = 3
    ssim_weights: tuple[float, ...] = (0.0516, 0.3295, 0.3463, 0.2726)
    stride: int = 16
    drawn: int = 16
    chunk: int = 512


@dataclass
class Training:
    """How IGD is trained.

    Attributes:
        gaussian: Weight of the Gaussian classifier in the loss, beside the reconstruction's 1.
        interpolation: Weight of what the critic says of interpolations; 0 trains no critic, in half of the time.
        estimate_every: Epochs after which centre and scale of the latents are estimated anew.
        fine_tune: Whether the encoders are trained too. Their batch normalisation stays as pretraining left it.
    """

    gaussian: float = 1.0
    interpolation: float = 0.1
    estimate_every: int = 10
    fine_tune: bool = False


def check(whole: Scale, local: WindowScale, training: Training) -> None:
    """Refuses settings that are out of range or do not go together.

    Raises:
        UserError: It names the option.
    """
    least = {"weight": 0, "drawn": 1, "chunk": 1, "stride": 1, "ssim_window": 1}
    for name, scale in (("global_scale", whole), ("local_scale", local)):
        for key, low in least.items():
            if getattr(scale, key, low) < low:
                raise UserError(f"model.{name}.{key} is {getattr(scale, key)}, but must be {low} or more.")
        for key in ("gaussian", "structure"):
            if not 0 <= getattr(scale, key) <= 1:
                raise UserError(f"model.{name}.{key} is {getattr(scale, key)}, but must be a share between 0 and 1.")
        if not scale.ssim_weights:
            raise UserError(f"model.{name}.ssim_weights is empty, but must have a weight for each level of similarity.")
    if training.estimate_every < 1 or min(training.gaussian, training.interpolation) < 0:
        raise UserError("model.training: estimate_every must be 1 or more, gaussian and interpolation 0 or more.")
    if whole.weight + local.weight == 0:
        raise UserError("model.global_scale.weight and model.local_scale.weight must not both be 0.")
    if local.stride > local.size:
        raise UserError(
            f"model.local_scale.stride is {local.stride}, but must be at most the windows' size, {local.size} px: else"
            " some pixels lie in no window."
        )
    if local.weight and ((whole.size - local.size) % local.stride or local.size > whole.size):
        raise UserError(
            f"model.local_scale: windows of {local.size} px every {local.stride} px do not end where images of"
            f" {whole.size} px do."
        )


class Descriptor(nn.Module):
    """Latents, decoder, critic and Gaussian on top of an encoder's features (Chen, Tian et al., AAAI 2022).

    Args:
        scale: Sizes and weights.
        latent_size: D.
        name: Of the option that sets the scale, for messages.
        whitened: Whether latents are principal components, found before training, instead of learned.

    Raises:
        UserError: If the sizes do not go together.
    """

    def __init__(self, scale: Scale, latent_size: int, name: str, whitened: bool = False) -> None:
        super().__init__()
        self.settings = scale
        self.name = name
        self.whitened = whitened
        last = scale.size >> (len(scale.ssim_weights) - 1)  # px, the last level's side
        self.window = min(scale.ssim_window, (last - 1) // 2 * 2 + 1)
        try:
            self.decoder = Decoder(scale.size, scale.width, latent_size).to(memory_format=torch.channels_last)
            self.critic = Critic(scale.size, scale.width).to(memory_format=torch.channels_last)
            black = torch.zeros(1, 3, scale.size, scale.size)
            igd.reconstruction_errors(black, black, **self._options)
        except ValueError as error:
            raise UserError(f"model.{name} does not fit together: {error}.") from error
        self.latent = nn.Linear(Encoder.features_size, latent_size)
        # The centre of whitened latents is 0, which has no sign to be moved to.
        self.gaussian = LatentGaussian(latent_size, floor=0.0 if whitened else 0.1)

    @property
    def drawn(self) -> int:
        """How many views of an image a training step sees."""
        return 1

    def training_views(self, images: Tensor, rng: np.random.Generator, total: int, own: Tensor) -> Tensor:
        """What a training step sees.

        Args:
            images: (B, C, H, W).
            rng: Source of all randomness, the same on every rank.
            total: Images in the batch of all ranks.
            own: Places of these images in it, (B,).

        Returns:
            (B drawn, C, size, size): here the images themselves.
        """
        return images

    def estimation_views(self, images: Tensor) -> Tensor:
        """What the latents' Gaussian is estimated from: (B, C, H, W) to (N, C, size, size), here the same."""
        return images

    def losses(
        self, encoder: Encoder, images: Tensor, alpha: Tensor | None, partners: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """The terms of the loss; `critic` reaches the critic's weights alone, the others all but these.

        So one backward pass does for both. They are updated at once, not in turns, as in ACAI, from which the critic
        comes (Berthelot et al., ICLR 2019).

        Args:
            encoder: Gives the features.
            images: (N, 3, size, size) in [0, 1].
            alpha: (N,) in [0, 0.5], how far to interpolate; None leaves out the terms `interpolation` and `critic`.
            partners: From the latents (N, D) to those to interpolate with.
        """
        latent = self.latent(encoder.features(images))
        between = [] if alpha is None else [igd.interpolate_latents(latent, partners(latent), alpha)]
        made = self.decoder(torch.cat([latent, *between]))
        with torch.autocast(images.device.type, enabled=False):  # differences of near numbers
            target = encoder.normalise(images)
            reconstruction, *interpolated = torch.split(encoder.normalise(_exact(made)), len(images))
            terms = {
                "reconstruction": igd.reconstruction_loss(target, reconstruction, **self._options),
                "gaussian": igd.gaussian_score(_exact(latent), self.gaussian.centre, self.gaussian.scale).mean(),
            }
        if alpha is None:
            return terms
        fixed = {name: parameter.detach() for name, parameter in self.critic.named_parameters()}
        terms["interpolation"] = igd.interpolation_loss(_exact(functional_call(self.critic, fixed, (interpolated[0],))))
        blended = torch.lerp(reconstruction, target, 0.2)
        criticised = _exact(self.critic(torch.cat([interpolated[0], blended]).detach()))
        return terms | {"critic": igd.critic_loss(criticised[: len(images)], alpha, criticised[len(images) :])}

    def reconstruct(self, encoder: Encoder, images: Tensor) -> Tensor:
        """What the decoder makes of images (N, 3, size, size): as many, in [0, 1]."""
        made: Tensor = self.decoder(self.latent(encoder.features(images)))
        return made

    def score(self, encoder: Encoder, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N,) and maps (N, size, size) >= 0 of images (N, 3, size, size) in [0, 1]."""
        latent = self.latent(encoder.features(images))
        made = self.decoder(latent)
        errors, maps = igd.reconstruction_errors(encoder.normalise(images), encoder.normalise(made), **self._options)
        distance = igd.gaussian_score(latent, self.gaussian.centre, self.gaussian.scale)
        share = self.settings.gaussian
        return (1 - share) * errors + share * distance, maps

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "window": self.window,
            "weights": self.settings.ssim_weights,
            "structure": self.settings.structure,
        }


def _exact(values: Tensor) -> Tensor:
    """The same in float32 at least, where mixed precision made them of half as many digits."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
