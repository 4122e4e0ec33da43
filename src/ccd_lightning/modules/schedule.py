"""Learning rate schedules, as factors for torch's LambdaLR.

torch's PolynomialLR and CosineAnnealingLR store their length in the checkpoint, so a run resumed with more epochs would
stay at the final rate. And with SequentialLR, the cosine starts after the warm-up, whereas here it starts with it.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import OptimizerCallable
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ccd_lightning.errors import UserError
from ccd_lightning.ranges import refuse

RANGES = {"betas": "from 0 to less than 1, each", "rho": "from 0 to 1"}  # all other options: 0 or more
# Names in the optimisers' error messages, and the options that they refer to.
NAMES = {"learning rate": "lr", "learning_rate": "lr", "epsilon": "eps", "beta": "betas"}


def build_optimizer(make: OptimizerCallable, parameters: Any) -> Optimizer:
    """Creates an optimiser from parameters or parameter groups.

    Raises:
        UserError: If the optimiser rejects its options, such as a negative learning rate, or one of them is infinite.
    """
    try:
        optimizer = make(parameters)
    except (TypeError, ValueError) as error:
        found = re.match(r"Invalid ([a-z_ ]+?)(?: value| parameter at index \d)?: (\S+)$", str(error))
        if not found:
            raise UserError(f"model.optimizer: {error}. Give another value.") from error
        name = NAMES.get(found[1], found[1])
        refuse(f"model.optimizer.{name}", float(found[2]), RANGES.get(name, "0 or more"))
    _refuse_infinite(optimizer)
    return optimizer


def check_optimizer(make: OptimizerCallable) -> None:
    """Checks the options of an optimiser with a dummy parameter, so that mistakes are reported before data are read.

    Raises:
        UserError: As in `build_optimizer`.
    """
    build_optimizer(make, [nn.Parameter(torch.zeros(1, 1))])


def _refuse_infinite(optimizer: Optimizer) -> None:
    for name, value in optimizer.param_groups[-1].items():
        if isinstance(value, float) and not math.isfinite(value):
            refuse(f"model.optimizer.{name}", value, "finite")


def cosine_with_warmup(step: int, total: int, warmup: int = 0, final: float = 1e-3, every: int = 1) -> float:
    """Returns the factor of the learning rate: half a cosine down to `final`, with a linear warm-up.

        final + (1 - final) (1 + cos(pi step / total)) / 2

    During the warm-up, this is multiplied by (step + 1) / (warmup + 1).

    Args:
        step: Number of completed steps (or epochs), from 0.
        total: Total number of steps.
        warmup: Number of warm-up steps.
        final: Factor at the end; 1e-3 in the published schedule.
        every: Number of steps after which the cosine is updated; those of an epoch in the published schedule.

    Returns:
        Factor in (0, 1].
    """
    done = min(step // every * every, total)
    cosine = final + (1 - final) * (1 + math.cos(math.pi * done / total)) / 2
    return cosine * min(1.0, (step + 1) / (warmup + 1))


def polynomial(step: int, total: int, power: float = 0.9) -> float:
    """Returns the factor of the learning rate, which decreases from 1 to 0: (1 - step / total) ** power.

    Args:
        step: Number of completed steps, from 0.
        total: Total number of steps; after them the factor stays 0.
        power: Exponent; 0.9 is published for IGD.
    """
    return float((1 - min(step, total) / total) ** power)


def planned_steps(trainer: Trainer) -> int:
    """Returns the number of optimiser steps of a fit.

    Raises:
        UserError: If the fit has no limit.
    """
    total = trainer.estimated_stepping_batches
    if not math.isfinite(total):
        raise UserError(
            "The learning rate schedule needs a limit of the training: give --trainer.max_epochs or .max_steps."
        )
    return int(total)


def warmup_cosine(optimizer: Optimizer, trainer: Trainer, warmup: int, interval: Literal["step", "epoch"]) -> LambdaLR:
    """Creates the schedule of `cosine_with_warmup` for all parameter groups, to be updated every optimiser step.

    Args:
        optimizer: Optimiser with the peak learning rates.
        trainer: Trainer of the fit.
        warmup: Number of warm-up steps.
        interval: Whether the cosine is updated every step or every epoch.

    Raises:
        UserError: If the fit has no limit.
    """
    total, every = planned_steps(trainer), 1
    if interval == "epoch":
        trainer.fit_loop.setup_data()  # determines the number of batches per epoch
        every = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    return LambdaLR(optimizer, lambda step: cosine_with_warmup(step, total, warmup, every=every))
