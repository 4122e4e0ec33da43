"""Options of the encoder: its network and the source of its weights, which are loaded strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import yaml
from lightning.pytorch.utilities import rank_zero_warn

from ccd_lightning import shipped
from ccd_lightning.checkpoints import (
    CONFIG_KEY,
    DIVISION_KEY,
    check_content,
    encoder_state,
    fingerprint,
    network_of,
    read_checkpoint,
)
from ccd_lightning.commands import command, expand
from ccd_lightning.data.division import Division
from ccd_lightning.errors import UserError
from ccd_lightning.extras import pip_install
from ccd_lightning.models import encoder as encoders
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.imagenet import PACKAGES, imagenet_weights, local_weights, weights_origin
from ccd_lightning.models.networks import architecture, require_network
from ccd_lightning.models.weights import encoder_weights, read_tensors
from ccd_lightning.runs import LATEST, find_checkpoint, runs_below

RANDOM, IMAGENET, AUTO = "random", "imagenet", "auto"
WEIGHT_FILES = (".pth", ".pt", ".bin", ".safetensors", ".ckpt")


@dataclass
class EncoderConfig:
    """The network of the encoder, and its initial weights.

    Attributes:
        name: Name of the timm network, such as "resnet18" or "tf_efficientnet_lite0"; `ccd encoders` lists them. null
            uses the network of the CCD run that the weights come from, and otherwise "resnet18"; with "auto" weights,
            "tf_efficientnet_lite0" if its ImageNet weights are on this machine.
        weights: Initial weights: null (random), "imagenet", "auto" (ImageNet weights if they are on this machine,
            otherwise random weights with a warning; nothing is downloaded), a weights file (.pth, .pt or .safetensors,
            with the tensor names of timm, torchvision or lightly), or a CCD run: its folder, the folder of its versions
            (the newest finished one is used), or a checkpoint file. The config of a run stores which weights were used.
        digest: Digest of these weights, which `ccd fit` writes into the config of a run. Weights with another digest
            are refused.
    """

    name: str | None = None
    weights: str | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        """Converts the strings "None" and "null" to None, because overrides on the command line arrive as text."""
        for field in fields(self):
            if getattr(self, field.name) in ("None", "null"):
                setattr(self, field.name, None)
            elif getattr(self, field.name) == "":
                raise UserError(f"model.encoder.{field.name} is empty. Give a value, or leave the option out.")


@dataclass
class TrainedEncoderConfig(EncoderConfig):
    """The encoder's initial weights, and how pretraining fine-tunes them.

    The defaults are for random weights: all of the encoder learns, at one rate with the heads.

    Attributes:
        freeze: Number of levels, from the first, that are frozen: they get no gradient, and their batch norm uses its
            running statistics. `ccd encoders NAME` lists the levels; the first level of a ResNet is its stem. 0 freezes
            nothing.
        lr_scale: Learning rate of the encoder, as a share of that of the heads.
        batch_norm: Statistics of the encoder's batch norm. "calibrate": those of each batch in training, and afterwards
            those of the training images. "keep": the running statistics of the initial weights, in both; scales and
            shifts are still trained, unless they are frozen.
        l2_sp: Weight of half the squared distance between the trained parameters of the encoder and their initial
            values (L2-SP, Li et al., ICML 2018). It replaces their weight decay, which is then 0. 0 turns it off.
    """

    freeze: int = 0
    lr_scale: float = 1.0
    batch_norm: Literal["calibrate", "keep"] = "calibrate"
    l2_sp: float = 0.0


Config = TypeVar("Config", bound=EncoderConfig)


@dataclass(frozen=True)
class EncoderSource:
    """Source of an encoder's weights.

    Attributes:
        weights: "random", "imagenet" or the path of a file.
        digest: Digest of the weights; None for random weights.
        origin: Package or file of ImageNet weights.
        division: Division into training and held-out images in the run that trained the weights; None if they are not
            from a run, or the run does not store it.
        is_run: Whether a run of this program trained the weights.
    """

    weights: str
    digest: str | None = None
    division: Division | None = None
    is_run: bool = False
    origin: str = ""

    def __str__(self) -> str:
        """Describes the weights for the terminal."""
        if self.weights == IMAGENET:
            return f"ImageNet weights ({self.origin})"
        return "random weights" if self.weights == RANDOM else f"weights of {self.weights}"


def build_encoder(config: Config | Mapping[str, Any]) -> tuple[Config, Encoder]:
    """Creates the encoder of a config, with random weights.

    Args:
        config: Options of the encoder, or the result of `Encoder.settings` from the hyper-parameters of a checkpoint.
            It is not modified.

    Returns:
        The config with the name of the network, and with "auto" resolved; and the encoder.

    Raises:
        UserError: If there is no such network.
    """
    given = config if isinstance(config, EncoderConfig) else TrainedEncoderConfig(name=config["name"])
    if given.name:
        require_network(given.name)
    known = _without_auto(given) if given.weights == AUTO else given
    encoder = Encoder(known.name or _name_in_run(known.weights) or "")
    return cast(Config, replace(known, name=encoder.name)), encoder


def _without_auto(config: EncoderConfig) -> EncoderConfig:
    """Selects ImageNet weights if they are on this machine, otherwise random weights."""
    names = [config.name] if config.name else [*encoders.PREFERRED, encoders.DEFAULT]
    if found := next((name for name in names if local_weights(name)), None):
        return replace(config, name=found, weights=IMAGENET)
    packaged = any(architecture(name) in PACKAGES for name in names)
    download = "download them with --model.encoder.weights imagenet, or leave the network's name out and "
    rank_zero_warn(
        f"No ImageNet weights of {' or '.join(names)} are on this machine, so the encoder starts from random weights."
        f" To start from ImageNet weights, {'' if packaged else download}install some:"
        f" {pip_install('weights')}"
    )
    if isinstance(config, TrainedEncoderConfig):  # random weights: the whole encoder must be trained
        return TrainedEncoderConfig(names[-1], digest=config.digest)
    return replace(config, name=names[-1], weights=None)


def _name_in_run(weights: str | None) -> str | None:
    """Returns the network of the CCD run that weights come from; None if they are not from a run or cannot be read.

    Errors are not reported here but in `initialise_encoder`, when the weights are needed.
    """
    if weights in (None, IMAGENET):
        return None
    try:
        return network_of(read_checkpoint(find_checkpoint(expand(str(weights)))))
    except UserError:
        return None


def initialise_encoder(encoder: Encoder, config: EncoderConfig, option: str = "model.encoder") -> EncoderSource:
    """Loads the weights of a config into an encoder.

    Args:
        encoder: Encoder to initialise; unchanged if the config has no weights.
        config: Options of the encoder.
        option: Name of the option, used in error messages.

    Returns:
        Source of the weights.

    Raises:
        UserError: If a run cannot be found, a tensor does not fit, or the weights do not have the digest of the config.
    """
    if config.weights is None:
        return EncoderSource(RANDOM)
    if config.weights == IMAGENET:
        encoder.load_network(imagenet_weights(encoder.name, encoder.network))
        source = EncoderSource(IMAGENET, fingerprint(encoder), origin=weights_origin(encoder.name))
    else:
        source = _load_file(encoder, expand(config.weights), option)
    if config.digest not in (None, source.digest):
        raise UserError(
            f"{source.weights}: the encoder's weights are not those that the config names (digest {source.digest}, not"
            f" {config.digest}). To use them, give --{option}.digest null."
        )
    return source


def _load_file(encoder: Encoder, path: Path, option: str) -> EncoderSource:
    """Loads the weights of a CCD run, or of a file from another source."""
    if not path.exists() or (path.is_dir() and next(runs_below(path), None) is None):
        raise UserError(_no_run(path, option))
    file = _concrete(find_checkpoint(path))
    content = read_tensors(file)
    if path.is_file() and not _is_own(content):
        encoder.load_network(encoder_weights(content, encoder.network, file))
        return EncoderSource(str(file), fingerprint(encoder))
    checkpoint = check_content(content, file)
    network = network_of(checkpoint) or encoder.name
    if architecture(network) != architecture(encoder.name):
        raise UserError(
            f"{file}: its encoder is {network}, but {option}.name is {encoder.name}. To take the run's, give"
            f" --{option}.name null."
        )
    encoder.load_state_dict(encoder_state(checkpoint, file, encoder))
    division = Division.from_state(checkpoint.get(DIVISION_KEY))
    return EncoderSource(str(file), fingerprint(encoder), division, is_run=True)


def _is_own(content: Mapping[str, Any]) -> bool:
    """Returns whether the content of a file is a checkpoint of this program."""
    settings = content.get("hyper_parameters")
    return CONFIG_KEY in content or (isinstance(settings, Mapping) and "_class_path" in settings)


def _concrete(checkpoint: Path) -> Path:
    """Resolves `latest` in the path of a checkpoint, so that the path stays valid when another run finishes."""
    run = checkpoint.parent.parent
    if run.name == LATEST and run.is_symlink():
        return run.parent / run.readlink() / checkpoint.parent.name / checkpoint.name
    return checkpoint


def recorded_sources(checkpoint: Mapping[str, Any]) -> dict[str, EncoderSource]:
    """Returns the sources of the encoders from the config in a checkpoint, by option; used in resumed fits."""
    try:
        arguments = yaml.safe_load(checkpoint.get(CONFIG_KEY) or "{}")["model"]["init_args"]
        found = {name: value for name, value in arguments.items() if isinstance(value, dict) and "weights" in value}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return {}
    return {
        name: EncoderSource(str(value["weights"] or RANDOM), str(value["digest"]) if value.get("digest") else None)
        for name, value in found.items()
    }


def _no_run(path: Path, option: str) -> str:
    if path.suffix in WEIGHT_FILES:
        return f"{path}: no such file. Give the weights of an encoder, or go without by --{option}.weights null"
    named = path.name in shipped.names()
    make = f"Make one with: {command('fit', '--config', path.name)}" if named else "Pretrain one with ccd fit"
    return f"{path}: no CCD run for the encoder. {make}, or go without by --{option}.weights null"
