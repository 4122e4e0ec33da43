"""Limits how far pretraining may change the initial weights of the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from ccd_lightning.encoder_config import TrainedEncoderConfig
from ccd_lightning.errors import UserError
from ccd_lightning.models.batchnorm import find_norms
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.modules.schedule import build_optimizer
from ccd_lightning.ranges import above, at_least, within

START_KEY = "ccd_start"  # key in checkpoints: the encoder's initial parameters, for L2-SP


def limit_training(encoder: Encoder, config: TrainedEncoderConfig) -> None:
    """Freezes the parts of an encoder that are not trained, after checking the options.

    Args:
        encoder: Encoder to change. The frozen levels no longer require gradients; they and the batch norm layers with
            fixed statistics are set to eval mode.
        config: Options of the encoder.

    Raises:
        UserError: If an option is invalid.
    """
    _check(encoder, config)
    for parameter in encoder.parameters_up_to(config.freeze - 1) if config.freeze else []:
        parameter.requires_grad_(False)
    for part in (*frozen_parts(encoder), *kept_norms(encoder, config)):
        part.eval()


def frozen_parts(encoder: Encoder) -> list[nn.Module]:
    """Returns the submodules with parameters of which none is trained.

    Modules without parameters inside of them, such as stochastic depth, follow their parents' mode.
    """
    own = {part: list(part.parameters()) for part in encoder.modules()}
    return [part for part, found in own.items() if found and not any(one.requires_grad for one in found)]


def kept_norms(encoder: Encoder, config: TrainedEncoderConfig) -> set[nn.Module]:
    """Returns the batch norm layers that keep their running statistics: all, or those of the frozen levels."""
    parts = [encoder] if config.batch_norm == "keep" else frozen_parts(encoder)
    return {norm for part in parts for norm in find_norms(part)}


def make_optimizer(make: OptimizerCallable, module: nn.Module, encoder: Encoder, config: TrainedEncoderConfig) -> Any:
    """Creates the optimiser of all trained parameters, with separate groups if encoder and heads need other options.

    Args:
        make: Creates the optimiser from the parameters, or from the groups "encoder" and "heads".
        module: Module with all trained parameters.
        encoder: The encoder in this module.
        config: Options of the encoder: its learning rate, and whether L2-SP replaces its weight decay.

    Raises:
        UserError: If the optimiser rejects its options, such as a negative learning rate.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if config.lr_scale == 1 and not config.l2_sp:
        return build_optimizer(make, trained)
    inner, decay = set(encoder.parameters()), {"weight_decay": 0.0} if config.l2_sp else {}
    groups: list[dict[str, Any]] = [
        {"params": [one for one in trained if one in inner], "name": "encoder", **decay},
        {"params": [one for one in trained if one not in inner], "name": "heads"},
    ]
    optimizer = build_optimizer(make, groups)
    optimizer.param_groups[0]["lr"] *= config.lr_scale
    return optimizer


class StartingPoint:
    """Initial parameters of an encoder, for the L2-SP penalty (Li et al., ICML 2018, eq. 3).

    They are stored as an entry of the checkpoint and not as buffers, which distributed training would broadcast in
    every step.

    Args:
        encoder: Encoder with the initial parameters. Those that are trained are copied.
    """

    def __init__(self, encoder: Encoder) -> None:
        trained = [(name, parameter) for name, parameter in encoder.named_parameters() if parameter.requires_grad]
        self._values = {name: parameter.detach().clone() for name, parameter in trained}

    def distance(self, encoder: Encoder) -> Tensor:
        """Returns half the sum of squared differences from the encoder's parameters, as a differentiable scalar."""
        parts = []
        for name, start in self._values.items():
            parameter = encoder.get_parameter(name)
            self._values[name] = start = start.to(parameter)  # copies only once, after the encoder was moved
            parts.append((parameter - start).square().sum())
        return torch.stack(parts).sum() / 2

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Stores the parameters in a checkpoint."""
        checkpoint[START_KEY] = dict(self._values)

    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """Restores the parameters from the checkpoint of a run that is resumed.

        Raises:
            UserError: If the checkpoint has none, or those of other layers.
        """
        kept = checkpoint.get(START_KEY)
        if not isinstance(kept, Mapping) or kept.keys() != self._values.keys():
            raise UserError(
                "The run was started with another model.encoder.l2_sp or model.encoder.freeze, so its checkpoint does"
                " not hold the weights that this encoder started from. Resume with the settings of the run, or start a"
                " new one."
            )
        self._values = {name: torch.as_tensor(value) for name, value in kept.items()}


def _check(encoder: Encoder, config: TrainedEncoderConfig) -> None:
    levels = len(encoder.channels)
    last = f": the last of the {levels} levels of {encoder.name} has to learn"
    within("model.encoder.freeze", config.freeze, 0, levels - 1, last)
    keep = ". To keep levels as they are, give --model.encoder.freeze N"
    above("model.encoder.lr_scale", config.lr_scale, 0, keep)
    at_least("model.encoder.l2_sp", config.l2_sp, 0)
    kept = "freeze" if config.freeze else "l2_sp" if config.l2_sp else "batch_norm"
    if config.weights is None and (config.freeze or config.l2_sp or config.batch_norm == "keep"):
        raise UserError(
            f"model.encoder.{kept} is {getattr(config, kept)}, but there are no weights to keep: give"
            " --model.encoder.weights imagenet or a run, or leave the option out."
        )
