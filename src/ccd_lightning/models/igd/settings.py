"""Settings of IGD: its two scales, the weights of their scores, and its training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from ccd_lightning.errors import UserError
from ccd_lightning.losses import igd
from ccd_lightning.models.igd.networks import GROUPS, SMALLEST
from ccd_lightning.ranges import at_least, refuse, within


@dataclass
class Scale:
    """Size of a scale, and weights of its score and map.

    Attributes:
        size: Side of the reconstructed image or window, in pixels: 8, 16, ..., 512.
        width: Channels of decoder and critic at the full resolution, a multiple of 8.
        weight: Weight of this scale's score and map, relative to the other scale. A scale of weight 0 is not trained.
        gaussian: Share of the Gaussian classifier in the score, in [0, 1]. The rest is the reconstruction error.
        ssim_window: Side of the SSIM windows in pixels, odd. It is reduced if the last level is smaller.
        ssim_weights: Weights of the levels of MS-SSIM; each level has half the resolution of the one before.
        structure: Share of MS-SSIM in the reconstruction error and map, in [0, 1]. The rest is |x - x^|.
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
    """Settings of the local scale, which uses windows.

    Attributes:
        stride: Distance between neighbouring windows in scoring, in pixels.
        windows_per_image: Number of random windows of each image in a training step.
        chunk_size: Maximum number of windows that are scored at once (at least one row of windows); it limits memory.
    """

    size: int = 32
    gaussian: float = 0.1
    ssim_window: int = 3
    ssim_weights: tuple[float, ...] = (0.0516, 0.3295, 0.3463, 0.2726)
    stride: int = 16
    windows_per_image: int = 16
    chunk_size: int = 512


@dataclass
class Training:
    """How IGD is trained.

    Attributes:
        gaussian: Weight of the Gaussian term in the loss; the reconstruction has weight 1.
        interpolation: Weight of the interpolation term, which uses the critic. 0 trains no critic, which takes half the
            time.
        estimate_every: Number of epochs after which centre and scale of the latents are re-estimated.
        fine_tune: Whether the encoders are trained too. Their batch normalisation statistics stay fixed.
        mirror: Whether images are flipped from left to right at random (half of them) in each training step.
    """

    gaussian: float = 1.0
    interpolation: float = 0.1
    estimate_every: int = 10
    fine_tune: bool = False
    mirror: bool = False


def check(whole: Scale, local: WindowScale, training: Training) -> None:
    """Checks that settings are in range and compatible.

    Raises:
        UserError: If a setting is invalid. The message names the option.
    """
    least = {"weight": 0, "windows_per_image": 1, "chunk_size": 1, "stride": 1, "ssim_window": 1}
    for name, scale in (("global_scale", whole), ("local_scale", local)):
        option = f"model.{name}"
        if scale.size < 2 * SMALLEST or scale.size & (scale.size - 1):
            refuse(f"{option}.size", scale.size, "a power of 2: 8, 16, 32, ...")
        if scale.width < 1 or scale.width % GROUPS:
            refuse(f"{option}.width", scale.width, f"a multiple of {GROUPS}")
        for key, low in least.items():
            at_least(f"{option}.{key}", getattr(scale, key, low), low)
        for key in ("gaussian", "structure"):
            within(f"{option}.{key}", getattr(scale, key), 0, 1)
        if scale.ssim_window % 2 == 0:
            refuse(f"{option}.ssim_window", scale.ssim_window, "odd: 1, 3, 5, ...")
        levels = scale.ssim_weights
        if not (all(0 <= weight < math.inf for weight in levels) and sum(levels) > 0):
            refuse(f"{option}.ssim_weights", list(levels), "a weight of 0 or more for each level, not all of them 0")
    at_least("model.training.estimate_every", training.estimate_every, 1)
    at_least("model.training.gaussian", training.gaussian, 0)
    at_least("model.training.interpolation", training.interpolation, 0)
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


def check_image_size(size: Sequence[int], scale: Scale) -> None:
    """Checks that images have the size of the global scale.

    Args:
        size: Height and width of the images in pixels.
        scale: Settings of the global scale.

    Raises:
        UserError: If the sizes differ.
    """
    height, width = size
    if height != width:
        raise UserError(
            f"Images of {height} x {width} px do not fit IGD, which reconstructs square ones: give --data.size"
            f" {scale.size}, and --data.fit letterbox to keep their shape."
        )
    if height != scale.size:
        raise UserError(
            f"Images of {height} px do not fit this detector of {scale.size} px: give --data.size {scale.size},"
            f" or fit one with --model.global_scale.size {height}."
        )


def plain(settings: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass, or of the mapping that a checkpoint stores instead, as a dict."""
    return asdict(settings) if is_dataclass(settings) and not isinstance(settings, type) else dict(settings)
