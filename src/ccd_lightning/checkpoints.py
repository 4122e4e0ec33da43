"""Checkpoints: reading them without running code, and what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.errors import UserError
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.weights import read_tensors
from ccd_lightning.renamed import current_config, rename_tensors
from ccd_lightning.writing import short_text

PREFIX = "encoder."
CONFIG_KEY = "ccd_config"  # under which a checkpoint carries its config
DIVISION_KEY = "ccd_division"  # and which images were held out


def fingerprint(*encoders: Encoder) -> str:
    """A digest of the encoders' tensors: the same for the same weights, wherever they came from."""
    digest = hashlib.sha256()
    for encoder in encoders:
        for name, tensor in sorted(encoder.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint on the CPU, without running any code that it may carry.

    Raises:
        UserError: If the file is damaged or no checkpoint.
    """
    return check_content(read_tensors(path), path)


def check_content(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """A file's content as a checkpoint of this program, with today's names of its tensors."""
    if not isinstance(content.get("state_dict"), dict):
        raise _no_checkpoint(path, "it holds no state_dict")
    if not isinstance(content.get("hyper_parameters", {}), dict):
        raise _no_checkpoint(path, "its hyper_parameters are not named")
    for name, tensor in content["state_dict"].items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor) and _holds_numbers(tensor)):
            raise _no_checkpoint(path, f"{short_text(name)} in it is no tensor")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"{path}: {name} claims more memory than the file holds, so it is not read. Give another.")
    rename_tensors(content["state_dict"])
    return content


def _no_checkpoint(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: not a checkpoint of this program ({reason}). Give one that ccd fit wrote.")


def _holds_numbers(tensor: Tensor) -> bool:
    """Whether a tensor's values are in memory, one after another."""
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized


def network_of(checkpoint: Mapping[str, Any], option: str = "encoder") -> str | None:
    """The network that an encoder of a checkpoint is; None where it does not say, as in older ones.

    Args:
        checkpoint: Its content.
        option: The model's option that the encoder belongs to.
    """
    settings = checkpoint.get("hyper_parameters", {}).get(option)
    return str(settings["name"]) if isinstance(settings, Mapping) and settings.get("name") else None


def model_of(checkpoint: dict[str, Any]) -> str:
    """The class path of the model that a checkpoint is of; empty where it says none."""
    name = checkpoint.get("hyper_parameters", {}).get("_class_path")
    return name if isinstance(name, str) else ""


def encoder_state(checkpoint: dict[str, Any], path: Path, encoder: Encoder) -> dict[str, Tensor]:
    """The encoder's tensors of a checkpoint, checked for completeness.

    Raises:
        UserError: If one is missing, superfluous, of another shape or not made of numbers.
    """
    state = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(PREFIX)
    }
    wanted = encoder.state_dict()
    different = sorted(wanted.keys() ^ state.keys()) or sorted(
        name for name, tensor in wanted.items() if tensor.shape != state[name].shape
    )
    if different:
        raise UserError(f"{path}: its encoder does not fit ({len(different)} tensors, the first is {different[0]}).")
    if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
        raise UserError(
            f"{path}: its encoder's weights are not numbers, as its training broke down. Pretrain another one."
        )
    return state


def fitted_preprocessing(checkpoint: Mapping[str, Any]) -> Preprocessing | None:
    """How images were brought to working size, by the config that a checkpoint carries; None where it carries none.

    Raises:
        AttributeError, RecursionError, TypeError, ValueError, yaml.YAMLError: If that config is damaged.
    """
    config = current_config(yaml.safe_load(checkpoint.get(CONFIG_KEY) or "{}"))
    try:
        return Preprocessing.from_settings(config["data"]["init_args"])
    except KeyError:
        return None
