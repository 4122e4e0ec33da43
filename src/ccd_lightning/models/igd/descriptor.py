"""One of IGD's two scales: the networks on top of an encoder, their losses and scores."""

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
    """Latent layer, decoder, critic and Gaussian on top of an encoder's features (Chen, Tian et al., AAAI 2022).

    Args:
        scale: Settings of the scale.
        features_size: Length F of the encoder's feature vectors.
        latent_size: Number D of latents.
        name: Name of the option that sets the scale, used in error messages.
        whitened: Whether latents are principal components, computed before training, instead of learned.

    Raises:
        UserError: If the sizes are not compatible.
    """

    def __init__(self, scale: Scale, features_size: int, latent_size: int, name: str, whitened: bool = False) -> None:
        super().__init__()
        self.settings = scale
        self.name = name
        self.whitened = whitened
        last = scale.size >> (len(scale.ssim_weights) - 1)  # px, side of the last level
        self.window = min(scale.ssim_window, (last - 1) // 2 * 2 + 1)
        try:
            self.decoder = Decoder(scale.size, scale.width, latent_size).to(memory_format=torch.channels_last)
            self.critic = Critic(scale.size, scale.width).to(memory_format=torch.channels_last)
            black = torch.zeros(1, 3, scale.size, scale.size)
            igd.reconstruction_errors(black, black, **self._options)
        except ValueError as error:
            raise UserError(f"model.{name} does not fit together: {error}.") from error
        self.latent = nn.Linear(features_size, latent_size)
        # The centre of whitened latents is 0. It has no sign, so there is no side to move it to.
        self.gaussian = LatentGaussian(latent_size, floor=0.0 if whitened else 0.1)

    @property
    def views_per_image(self) -> int:
        """Number of views of an image in a training step."""
        return 1

    def training_views(
        self, images: Tensor, rng: np.random.Generator, total: int, own: Tensor, content: Tensor | None = None
    ) -> Tensor:
        """Returns the views of a training step.

        Args:
            images: Images, (B, C, H, W).
            rng: Random generator in the same state on every rank.
            total: Number of images in the batch of all ranks.
            own: Indices of these images in that batch, (B,).
            content: Content boxes of the images, (B, 4); None if everything is content.

        Returns:
            Views (B V, C, size, size), V per image. This class returns the images themselves.
        """
        return images

    def estimation_views(self, images: Tensor, content: Tensor | None = None) -> Tensor:
        """Returns the views (N, C, size, size) from which the Gaussian is estimated; this class returns the images."""
        return images

    def estimate(self, features: Batches, add_up: AddUp, features_changed: bool = True) -> str:
        """Estimates the centre and scale of the latents, and on the first call the whitening if `whitened` is set.

        Args:
            features: Returns an iterator over batches (N, F) of the encoder's features of this process's
                `estimation_views`.
            add_up: Sums a tensor over all processes.
            features_changed: Whether the features have changed since the last estimate.

        Returns:
            A warning for the user, or an empty string.
        """
        warning = ""
        if self.whitened and self.gaussian.scale.isnan():
            whiten(self.latent, features, add_up)
            warning = self._advice()
        elif self.whitened and not features_changed:
            return warning
        self.gaussian.fit(lambda: map(self.latent, features()), add_up)
        return warning

    def _advice(self) -> str:
        """Returns a warning if there are more latents than components: s is then about the same for all images."""
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
        """Computes the terms of the loss.

        `critic` has gradients only for the critic's weights, the other terms for all other weights. So one backward
        pass is enough for both, and they are updated together and not in turns, as in ACAI (Berthelot et al., ICLR
        2019), which introduced the critic.

        Args:
            encoder: Encoder that computes the features.
            images: Images in [0, 1], (N, 3, size, size).
            alpha: Interpolation weights in [0, 0.5], (N,). None omits the terms `interpolation` and `critic`.
            partners: Function from the latents (N, D) to those to interpolate with.
        """
        latent = self.latent(encoder.features(images))
        between = [] if alpha is None else [igd.interpolate_latents(latent, partners(latent), alpha)]
        made = self.decoder(torch.cat([latent, *between]))
        with torch.autocast(images.device.type, enabled=False):  # half precision is too coarse for small differences
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
        """Returns the reconstructions of images (N, 3, size, size), in the same shape and in [0, 1]."""
        made: Tensor = self.decoder(self.latent(encoder.features(images)))
        return made

    def score(self, encoder: Encoder, images: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scores images.

        With content boxes, images and reconstructions are compared only inside the boxes. The latents are still those
        of the padded image, as the encoder sees it.

        Args:
            encoder: Encoder that computes the features.
            images: Images in [0, 1], (N, 3, size, size).
            content: Content boxes of the images, (N, 4); None if everything is content.

        Returns:
            Scores (N,) and maps (N, size, size), both >= 0.
        """
        latent = self.latent(encoder.features(images))
        made, mask = self.decoder(latent), None
        if content is not None:
            mask = pixels_within(content, images.shape[-2:])
            made, images = (torch.where(mask[:, None], one, 0) for one in (made, images))  # equal outside the box
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
    """Converts values to at least float32, which mixed precision may have computed in half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
