"""Checks that scores are finite before they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ccd_lightning.errors import UserError


def require_numbers(output: dict[str, Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns the output of a test or prediction step unchanged if its scores and maps are finite.

    Args:
        output: `scores` (B,), and optionally `maps` (B, H, W).
        batch: The batch, which may contain the files of the images as `path`.

    Raises:
        UserError: If a score or a value of a map is NaN or infinite. The message names the image.
    """
    sound = output["scores"].isfinite()
    if "maps" in output:
        sound = sound & output["maps"].isfinite().flatten(1).all(dim=1)
    if not bool(sound.all()):
        index = int((~sound).nonzero()[0])
        names = batch.get("path", ())
        image = str(names[index]) if index < len(names) else f"image {index} of a batch"
        raise UserError(
            f"{image}: its score or map is not finite, because the checkpoint's weights or statistics are not. Give"
            " --ckpt_path another checkpoint, or fit it again."
        )
    return output
