"""Networks of timm, by their names."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from ccd_lightning.errors import UserError

# Options with which networks take images of any size, or start as torchvision's do: without them, the last norm of each
# residual block starts at 0, and untrained features are those of the shortcuts alone.
_OPTIONS: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True},
    {"strict_img_size": False},
    {"zero_init_last": False},
)


def architecture(name: str) -> str:
    """A network's name without the tag of its pretrained weights."""
    return name.partition(".")[0]


def create_network(name: str) -> nn.Module:
    """Makes a network of timm without its classifier and with random weights, for images of any size where it can be.

    Args:
        name: In timm, with or without a tag.

    Raises:
        UserError: If timm has no such network, or it gives no feature maps.
    """
    import timm  # which takes seconds: commands that make no network do not wait for it

    if not timm.is_model(name):
        known = timm.list_models()
        close = difflib.get_close_matches(architecture(name), known, n=3, cutoff=0.5)
        hint = f" Similar: {', '.join(close)}." if close else ""
        raise UserError(
            f"model.encoder.name is {name!r}, which timm does not have.{hint} All are listed by: ccd encoders '*'"
        )
    network = _with_free_size(name)
    if not hasattr(network, "forward_intermediates") or not getattr(network, "feature_info", None):
        raise UserError(f"model.encoder.name is {name!r}, of which timm gives no feature maps. Choose another network.")
    return network


def _with_free_size(name: str) -> nn.Module:
    """Makes a network with the first of `_OPTIONS` that its architecture has."""
    import timm

    for options in (*_OPTIONS, {}):
        try:
            network: nn.Module = timm.create_model(name, num_classes=0, **options)
        except TypeError:  # it has no such option
            if not options:
                raise
        except (RuntimeError, ValueError, AssertionError) as error:
            raise UserError(f"model.encoder.name is {name!r}: {str(error).rstrip('.')}.") from error
        else:
            return network
    raise AssertionError


def levels_of(network: nn.Module) -> list[dict[str, Any]]:
    """What timm says of a network's levels: `num_chs`, `reduction` and more."""
    info: Any = network.feature_info
    levels: list[dict[str, Any]] = getattr(info, "info", info)
    return levels


def patch_size(network: nn.Module) -> int:
    """What the sides of images must be a multiple of; 1 where they need not."""
    size = getattr(getattr(network, "patch_embed", None), "patch_size", 1)
    return int(max(size) if isinstance(size, (tuple, list)) else size)
