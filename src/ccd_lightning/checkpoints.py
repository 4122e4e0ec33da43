"""Reads checkpoints without running code, and extracts their content."""

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
CONFIG_KEY = "ccd_config"  # key of the config in a checkpoint
DIVISION_KEY = "ccd_division"  # key of the division into training and held-out images


def fingerprint(*encoders: Encoder) -> str:
    """Returns a digest of the encoders' tensors, which depends only on the weights and not on their source."""
    digest = hashlib.sha256()
    for encoder in encoders:
        for name, tensor in sorted(encoder.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint to the CPU, without running any code that it may contain.

    Raises:
        UserError: If the file is damaged or not a checkpoint.
    """
    return check_content(read_tensors(path), path)


def check_content(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Checks that the content of a file is a checkpoint of this program, and updates old tensor names.

    Args:
        content: Content of the file, modified in place.
        path: Path of the file, used in error messages.

    Raises:
        UserError: If it is not a checkpoint of this program.
    """
    if not isinstance(content.get("state_dict"), dict):
        raise _no_checkpoint(path, "it holds no state_dict")
    if not isinstance(content.get("hyper_parameters", {}), dict):
        raise _no_checkpoint(path, "its hyper_parameters are not named")
    for name, tensor in content["state_dict"].items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor) and _holds_numbers(tensor)):
            raise _no_checkpoint(path, f"{short_text(name)} in it is not a tensor")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"{path}: {name} claims more memory than the file holds, so it is not read. Give another.")
    rename_tensors(content["state_dict"])
    return content


def _no_checkpoint(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: not a checkpoint of this program ({reason}). Give one that ccd fit wrote.")


def _holds_numbers(tensor: Tensor) -> bool:
    """Returns whether a tensor is a plain dense tensor on the CPU, neither sparse nor quantised."""
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized


def network_of(checkpoint: Mapping[str, Any], option: str = "encoder") -> str | None:
    """Returns the network name of an encoder in a checkpoint; None if it is not stored, as in older checkpoints.

    Args:
        checkpoint: Content of the checkpoint.
        option: The model's option for this encoder.
    """
    settings = checkpoint.get("hyper_parameters", {}).get(option)
    return str(settings["name"]) if isinstance(settings, Mapping) and settings.get("name") else None


def model_of(checkpoint: dict[str, Any]) -> str:
    """Returns the class path of the model in a checkpoint; empty if it is not stored."""
    name = checkpoint.get("hyper_parameters", {}).get("_class_path")
    return name if isinstance(name, str) else ""


def encoder_state(checkpoint: dict[str, Any], path: Path, encoder: Encoder) -> dict[str, Tensor]:
    """Extracts the encoder's tensors from a checkpoint, and checks that they are complete.

    Raises:
        UserError: If a tensor is missing, unexpected, of another shape or not finite.
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
            f"{path}: its encoder's weights are not finite, because its training diverged. Pretrain another one."
        )
    return state


def fitted_preprocessing(checkpoint: Mapping[str, Any]) -> Preprocessing | None:
    """Returns the preprocessing of images from the config in a checkpoint; None if it has no config.

    Raises:
        AttributeError, RecursionError, TypeError, ValueError, yaml.YAMLError: If that config is damaged.
    """
    config = current_config(yaml.safe_load(checkpoint.get(CONFIG_KEY) or "{}"))
    try:
        return Preprocessing.from_settings(config["data"]["init_args"])
    except KeyError:
        return None
