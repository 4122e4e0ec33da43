"""The encoder's way from pretraining to a detector: strict, or an error."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccd_lightning.commands import command, expand
from ccd_lightning.errors import UserError
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.runs import find_checkpoint

PREFIX = "encoder."
CONFIG_KEY = "ccd_config"  # under which a checkpoint carries its config


@dataclass
class EncoderConfig:
    """Where the encoder's weights come from.

    Attributes:
        weights: null (random), "imagenet", or a CCD run: its folder, the folder of its versions (then the newest
            finished one), or a checkpoint file.
    """

    weights: str | None = None

    def __post_init__(self) -> None:
        """Takes the word for nothing as nothing: an override on the command line arrives as text."""
        if self.weights in ("None", "null"):
            self.weights = None


def initialise_encoder(encoder: Encoder, config: EncoderConfig, option: str = "model.encoder") -> str:
    """Loads the weights that a config names.

    Args:
        encoder: The encoder to fill; left as it is where the config names nothing.
        config: What to load.
        option: The config's name, for messages.

    Returns:
        Where the weights came from: "random", "imagenet" or the checkpoint's path.

    Raises:
        UserError: If a run cannot be found, or one of its encoder's tensors does not fit.
    """
    if config.weights is None:
        return "random"
    if config.weights == "imagenet":
        encoder.load_imagenet()
        return "imagenet"
    path = expand(config.weights)
    if not path.exists() or (path.is_dir() and not any(path.glob("**/*.ckpt"))):
        raise UserError(_no_run(path, option))
    checkpoint = find_checkpoint(path)
    encoder.load_state_dict(encoder_state(read_checkpoint(checkpoint), checkpoint, encoder))
    return str(checkpoint)


def _no_run(path: Path, option: str) -> str:
    config = Path("configs") / f"{path.name}.yaml"
    make = f"Make one with: {command('fit', '--config', config)}" if config.is_file() else "Pretrain one with ccd fit"
    return f"{path}: no CCD run for the encoder. {make}, or go without by --{option}.weights null"


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
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the zip reader and the unpickler raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a readable checkpoint ({reason}).") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"{path}: not a checkpoint of this program (it holds no state_dict).")
    return content


def model_of(checkpoint: dict[str, Any]) -> str:
    """The class path of the model that a checkpoint is of; empty where it says none."""
    return str(checkpoint.get("hyper_parameters", {}).get("_class_path", ""))


def encoder_state(checkpoint: dict[str, Any], path: Path, encoder: Encoder) -> dict[str, Tensor]:
    """The encoder's tensors of a checkpoint, checked for completeness.

    Raises:
        UserError: If one is missing, superfluous or of another shape.
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
    return state
