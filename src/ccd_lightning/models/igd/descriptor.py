"""One of IGD's two scales: the nets on top of an encoder, their losses, and how they score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ccd_lightning.errors import UserError
from ccd_lightning.losses import igd
from ccd_lightning.models.content import pixels_within
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.igd.latents import LatentGaussian, whiten
from ccd_lightning.models.igd.networks import Critic, Decoder
from ccd_lightning.models.igd.settings import Scale
from ccd_lightning.models.means import AddUp, Batches


class Descriptor(nn.Module):
    """Latents, decoder, critic and Gaussian on top of an encoder's features (Chen, Tian et al., AAAI 2022).

    Args:
        scale: Sizes and weights.
        features_size: F, of the encoder's features.
        latent_size: D.
        name: Of the option that sets the scale, for messages.
        whitened: Whether latents are principal components, found before training, instead of learned.

    Raises:
        UserError: If the sizes do not go together.
    """

    def __init__(self, scale: Scale, features_size: int, latent_size: int, name: str, whitened: bool = False) -> None:
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
        self.latent = nn.Linear(features_size, latent_size)
        # The centre of whitened latents is 0, which has no sign to be moved to.
        self.gaussian = LatentGaussian(latent_size, floor=0.0 if whitened else 0.1)

    @property
    def views_per_image(self) -> int:
        """How many views of an image a training step sees."""
        return 1

    def training_views(
        self, images: Tensor, rng: np.random.Generator, total: int, own: Tensor, content: Tensor | None = None
    ) -> Tensor:
        """What a training step sees.

        Args:
            images: (B, C, H, W).
            rng: Source of all randomness, the same on every rank.
            total: Images in the batch of all ranks.
            own: Places of these images in it, (B,).
            content: Boxes of the images, (B, 4); None where all is content.

        Returns:
            (B V, C, size, size) for V views per image: here the images themselves.
        """
        return images

    def estimation_views(self, images: Tensor, content: Tensor | None = None) -> Tensor:
        """What the latents' Gaussian is estimated from: (B, C, H, W) to (N, C, size, size), here the same."""
        return images

    def estimate(self, features: Batches, add_up: AddUp, again: bool = True) -> str:
        """Finds whitened latents, if nothing was estimated before, and the latents' centre and scale.

        Args:
            features: Gives batches (N, F) of the encoder's features of this process's `estimation_views`.
            add_up: Adds a tensor of sums to those of the other processes.
            again: Whether features have changed since they were estimated before.

        Returns:
            A warning for the user, empty where there is nothing to warn of.
        """
        warning = ""
        if self.whitened and self.gaussian.scale.isnan():
            whiten(self.latent, features, add_up)
            warning = self._advice()
        elif self.whitened and not again:
            return warning
        self.gaussian.fit(lambda: map(self.latent, features()), add_up)
        return warning

    def _advice(self) -> str:
        """Says that there are more latents than images have components: then s is about the same for all of them."""
        found, size = int(self.latent.weight.any(dim=1).sum()), self.latent.out_features
        if found >= size:
            return ""
        return (
            f"The training images have {found} components for the {size} latents of model.{self.name}, whose"
            " Gaussian classifier is then hardly informative. Give fewer latents (--model.latent_size), or the"
            f" classifier less of the score (--model.{self.name}.gaussian)."
        )

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

    def score(self, encoder: Encoder, images: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scores images.

        Where not all is content, reconstructions are compared within the boxes alone. The latents are those of the
        image with its margin, as the encoder sees it.

        Args:
            encoder: Gives the features.
            images: (N, 3, size, size) in [0, 1].
            content: Their boxes, (N, 4); None where all is content.

        Returns:
            Scores (N,) and maps (N, size, size), both >= 0.
        """
        latent = self.latent(encoder.features(images))
        made, mask = self.decoder(latent), None
        if content is not None:
            mask = pixels_within(content, images.shape[-2:])
            made, images = (torch.where(mask[:, None], one, 0) for one in (made, images))  # alike across the border
        target, reconstruction = encoder.normalise(images), encoder.normalise(made)
        errors, maps = igd.reconstruction_errors(target, reconstruction, mask=mask, **self._options)
        distance = igd.ranking_score(latent, self.gaussian.centre, self.gaussian.scale)
        share = self.settings.gaussian
        maps = maps if mask is None else torch.where(mask, maps, 0)
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
