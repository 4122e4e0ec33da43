"""Creates timm networks by name."""

from __future__ import annotations

from typing import Any

from torch import nn

from ccd_lightning.errors import UserError
from ccd_lightning.similar import similar

# The first two let networks accept images of any size. The last one initialises residual networks as torchvision does:
# otherwise the last norm of each block starts at 0, and untrained features come from the shortcuts only.
_OPTIONS: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True},
    {"strict_img_size": False},
    {"zero_init_last": False},
)


def architecture(name: str) -> str:
    """Returns a network's name without the tag of its pretrained weights."""
    return name.partition(".")[0]


def create_network(name: str) -> nn.Module:
    """Creates a timm network without its classifier, with random weights, for images of any size if possible.

    Args:
        name: Name of the network in timm, with or without a tag.

    Raises:
        UserError: If timm has no such network, or the network returns no feature maps.
    """
    require_network(name)
    network = _with_free_size(name)
    if not hasattr(network, "forward_intermediates") or not getattr(network, "feature_info", None):
        raise UserError(f"model.encoder.name is {name!r}, which has no feature maps in timm. Choose another network.")
    return network


def require_network(name: str) -> None:
    """Checks that timm has a network.

    Args:
        name: Name of the network in timm, with or without a tag.

    Raises:
        UserError: If timm has no such network.
    """
    import timm  # imported here because it takes seconds, and not every command creates a network

    if not timm.is_model(name):
        known = timm.list_models()
        close = similar(architecture(name), known, most=3, cutoff=0.5)
        hint = f" Similar: {', '.join(close)}." if close else ""
        raise UserError(
            f"model.encoder.name is {name!r}, which timm does not have.{hint} All are listed by: ccd encoders '*'"
        )


def _with_free_size(name: str) -> nn.Module:
    """Creates a network with the first of `_OPTIONS` that its architecture accepts."""
    import timm

    for options in (*_OPTIONS, {}):
        try:
            network: nn.Module = timm.create_model(name, num_classes=0, **options)
        except TypeError:  # the architecture has no such option
            if not options:
                raise
        except (RuntimeError, ValueError, AssertionError) as error:
            raise UserError(f"model.encoder.name is {name!r}: {str(error).rstrip('.')}.") from error
        else:
            return network
    raise AssertionError


def levels_of(network: nn.Module) -> list[dict[str, Any]]:
    """Returns timm's description of a network's levels: `num_chs`, `reduction` and more."""
    info: Any = network.feature_info
    levels: list[dict[str, Any]] = getattr(info, "info", info)
    return levels


def patch_size(network: nn.Module) -> int:
    """Returns the number that image sides must be a multiple of; 1 if there is no restriction."""
    size = getattr(getattr(network, "patch_embed", None), "patch_size", 1)
    return int(max(size) if isinstance(size, (tuple, list)) else size)
