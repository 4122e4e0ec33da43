"""Translates the tensor names of other libraries to those of timm's networks."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor, nn

Renaming = list[tuple[str, str]]
# Children of torchvision's residual networks, which lightly's backbones number. Earlier versions of this package kept
# the first two in a stem.
_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_STEM: Renaming = [(r"(^|\.)stem\.0\.", r"\1conv1."), (r"(^|\.)stem\.1\.", r"\1bn1.")]
_TORCHVISION_VIT: Renaming = [
    (r"(^|\.)class_token$", r"\1cls_token"),
    (r"(^|\.)conv_proj\.", r"\1patch_embed.proj."),
    (r"(^|\.)encoder\.pos_embedding$", r"\1pos_embed"),
    (r"(^|\.)encoder\.layers\.encoder_layer_(\d+)\.", r"\1blocks.\2."),
    (r"(^|\.)encoder\.ln\.", r"\1norm."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", r".attn.qkv."),
    (r"\.self_attention\.out_proj\.", r".attn.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", r".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", r".mlp.fc2."),
    (r"(^|\.)heads\.head\.", r"\1head."),
]
_EFFICIENTNET: Renaming = [
    (r"(^|\.)_conv_stem\.", r"\1conv_stem."),
    (r"(^|\.)_conv_head\.", r"\1conv_head."),
    (r"(^|\.)_fc\.", r"\1classifier."),
    (r"^((?!.*_blocks\.).*)_bn0\.", r"\1bn1."),
    (r"^((?!.*_blocks\.).*)_bn1\.", r"\1bn2."),
    (r"\._se_reduce\.", r".se.conv_reduce."),
    (r"\._se_expand\.", r".se.conv_expand."),
]
_EXPANDING = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
_EXPANDING |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def translations(state: dict[str, Tensor], network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Yields the state with its own names, and then translated from each naming scheme that may apply.

    Args:
        state: State dict from a file.
        network: Network of timm that the state may belong to.
    """
    yield state
    wanted = network.state_dict()
    if any(name.startswith("conv1.") for name in wanted):
        yield {_numbered(name): value for name, value in state.items()}
        yield _renamed(state, _STEM)
    if any("_depthwise_conv" in name for name in state) and isinstance(getattr(network, "blocks", None), nn.Sequential):
        with suppress(TypeError):  # the network has other blocks
            yield _from_efficientnet_pytorch(state, network)
    if "patch_embed.proj.weight" in wanted:
        yield _renamed(state, _TORCHVISION_VIT)
    convert: Any = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert:
        with suppress(
            AssertionError, KeyError, ValueError, RuntimeError, AttributeError, TypeError, IndexError
        ):  # the file is not a release that timm converts
            yield dict(convert(dict(state), network))
    if any(name.startswith("features.") for name in state) and (ordered := _in_order(state, wanted)):
        yield ordered


def _renamed(state: Mapping[str, Tensor], renaming: Renaming) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in renaming:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def _numbered(name: str) -> str:
    """Translates a name in which a child of a residual network is numbered, as in an `nn.Sequential`."""
    parts = name.split(".")
    index = next((index for index, part in enumerate(parts) if part.isdigit()), None)
    if index is not None and parts[index] in _CHILDREN:
        parts[index] = _CHILDREN[parts[index]]
    return ".".join(parts)


def _from_efficientnet_pytorch(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Translates names of the package efficientnet_pytorch, which numbers blocks across all stages."""
    stages: Any = network.blocks
    blocks_in_order = [(stage, block) for stage, blocks in enumerate(stages) for block in range(len(blocks))]
    renamed = {}
    for name, value in _renamed(state, _EFFICIENTNET).items():
        if found := re.match(r"(.*?)_blocks\.(\d+)\.(\w+)\.(.*)", name):
            prefix, number, layer, rest = found.groups()
            if int(number) >= len(blocks_in_order):
                continue
            stage, block = blocks_in_order[int(number)]
            names = _EXPANDING if hasattr(stages[stage][block], "conv_pwl") else _SEPARABLE
            name = f"{prefix}blocks.{stage}.{block}.{names.get(layer, layer)}.{rest}"
        renamed[name] = value
    return renamed


def _in_order(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matches tensors by order, for torchvision's ConvNeXt and EfficientNet; returns {} if the shapes do not match.

    Both libraries store the tensors of these networks in the same order.
    """
    body = {name: value for name, value in state.items() if not name.startswith("classifier.")}
    last = [value for name, value in state.items() if name.startswith("classifier.0.")]  # a norm before the classifier
    values = [*body.values(), *(last if len(body) + len(last) == len(wanted) else [])]
    if len(values) != len(wanted):
        return {}
    pairs = list(zip(wanted.items(), values, strict=True))
    if any(
        [side for side in own.shape if side > 1] != [side for side in value.shape if side > 1]
        for (_, own), value in pairs
    ):
        return {}
    return {name: value.reshape(own.shape) for (name, own), value in pairs}
