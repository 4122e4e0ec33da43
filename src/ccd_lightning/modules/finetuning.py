"""How far pretraining may change the weights that it starts from."""

from __future__ import annotations

from typing import Any

from torch import nn

from ccd_lightning.encoder_config import TrainedEncoderConfig
from ccd_lightning.errors import UserError
from ccd_lightning.models.batchnorm import find_norms
from ccd_lightning.models.encoder import Encoder


def limit_training(encoder: Encoder, config: TrainedEncoderConfig) -> None:
    """Leaves out of training what a config says, once it is seen to be possible.

    Args:
        encoder: Its frozen levels need no gradient afterwards, and they and the norms that are kept are in eval mode.
        config: What to freeze and to keep.

    Raises:
        UserError: If the config is impossible.
    """
    _check(encoder, config)
    for parameter in encoder.parameters_up_to(config.freeze - 1) if config.freeze else []:
        parameter.requires_grad_(False)
    for part in (*frozen_parts(encoder), *kept_norms(encoder, config)):
        part.eval()


def frozen_parts(encoder: Encoder) -> list[nn.Module]:
    """The parts none of whose parameters is trained, with what has none inside of them, such as stochastic depth."""
    own = {part: list(part.parameters()) for part in encoder.modules()}
    return [part for part, found in own.items() if found and not any(one.requires_grad for one in found)]


def kept_norms(encoder: Encoder, config: TrainedEncoderConfig) -> set[nn.Module]:
    """The batch norms that go by the running statistics of the weights: all, or those of the frozen levels."""
    parts = [encoder] if config.batch_norm == "keep" else frozen_parts(encoder)
    return {norm for part in parts for norm in find_norms(part)}


def parameter_groups(
    module: nn.Module, encoder: Encoder, config: TrainedEncoderConfig
) -> list[nn.Parameter] | list[dict[str, Any]]:
    """What an optimiser is made from: the parameters that are trained, in groups where they have rates of their own.

    Args:
        module: All that is trained.
        encoder: A part of it.
        config: Says the encoder's learning rate.

    Returns:
        The parameters, or the groups "encoder" and "heads"; `lr_scale` in the former is what its rate is to be
        multiplied by.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if config.lr_scale == 1:
        return trained
    inner = set(encoder.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [one for one in trained if one in inner], "name": "encoder", "lr_scale": config.lr_scale},
        {"params": [one for one in trained if one not in inner], "name": "heads"},
    ]
    return groups


def _check(encoder: Encoder, config: TrainedEncoderConfig) -> None:
    levels = len(encoder.channels)
    if not 0 <= config.freeze < levels:
        raise UserError(
            f"model.encoder.freeze is {config.freeze}, but must be between 0 and {levels - 1}: the last of the"
            f" {levels} levels of {encoder.name} has to learn."
        )
    if config.lr_scale <= 0:
        raise UserError(
            f"model.encoder.lr_scale is {config.lr_scale}, but must be above 0. To keep levels as they are, give"
            " --model.encoder.freeze N."
        )
    kept = "freeze" if config.freeze else "batch_norm"
    if config.weights is None and (config.freeze or config.batch_norm == "keep"):
        raise UserError(
            f"model.encoder.{kept} is {getattr(config, kept)}, but there are no weights to keep: give"
            " --model.encoder.weights imagenet or a run, or leave the option out."
        )
