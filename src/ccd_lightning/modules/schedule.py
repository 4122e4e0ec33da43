"""The learning rate over time, as factors for torch's LambdaLR.

torch's own PolynomialLR and CosineAnnealingLR keep their length in a checkpoint: a run resumed with more epochs would
stay at the final rate. And SequentialLR has the cosine begin after the warm-up, where it falls during it here.
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

RANGES = {"betas": "from 0 to less than 1, each", "rho": "from 0 to 1"}  # others: 0 or more
NAMES = {"learning rate": "lr", "learning_rate": "lr", "epsilon": "eps", "beta": "betas"}  # as torch calls options


def build_optimizer(make: OptimizerCallable, parameters: Any) -> Optimizer:
    """Makes an optimiser from parameters, or groups of them.

    Raises:
        UserError: If it refuses its options, such as a rate below 0, or one of them is infinite.
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
    """Tries the options of an optimiser on a parameter of its own, so that a mistake is told before anything is read.

    Raises:
        UserError: As in `build_optimizer`.
    """
    build_optimizer(make, [nn.Parameter(torch.zeros(1, 1))])


def _refuse_infinite(optimizer: Optimizer) -> None:
    for name, value in optimizer.param_groups[-1].items():
        if isinstance(value, float) and not math.isfinite(value):
            refuse(f"model.optimizer.{name}", value, "finite")


def cosine_with_warmup(step: int, total: int, warmup: int = 0, final: float = 1e-3, every: int = 1) -> float:
    """Factor of the learning rate: linear over the warm-up, then half a cosine down to `final`.

        final + (1 - final) (1 + cos(pi step / total)) / 2

    Args:
        step: Steps (or epochs) done, from 0.
        total: Their number.
        warmup: How many of them to rise over.
        final: The factor at the end; the published schedule's is 1e-3.
        every: Steps for which the cosine stays as it is; the published schedule's are those of an epoch.

    Returns:
        A factor in (0, 1].
    """
    done = min(step // every * every, total)
    cosine = final + (1 - final) * (1 + math.cos(math.pi * done / total)) / 2
    return cosine * min(1.0, (step + 1) / (warmup + 1))


def polynomial(step: int, total: int, power: float = 0.9) -> float:
    """Factor of the learning rate that falls from 1 to 0: (1 - step / total) ** power.

    Args:
        step: Steps done, from 0.
        total: Their number; afterwards the factor stays 0.
        power: The published one of IGD is 0.9.
    """
    return float((1 - min(step, total) / total) ** power)


def planned_steps(trainer: Trainer) -> int:
    """How many optimiser steps a fit will take.

    Raises:
        UserError: If it has no end.
    """
    total = trainer.estimated_stepping_batches
    if not math.isfinite(total):
        raise UserError("The learning rate falls until training ends: give --trainer.max_epochs or .max_steps.")
    return int(total)


def warmup_cosine(optimizer: Optimizer, trainer: Trainer, warmup: int, falls: Literal["step", "epoch"]) -> LambdaLR:
    """The schedule of `cosine_with_warmup` over a fit, of all of the optimiser's groups, to be stepped with it.

    Args:
        optimizer: Its learning rates are those at the height.
        trainer: Of the fit.
        warmup: Optimiser steps to rise over.
        falls: Whether the cosine falls with each step or each epoch.

    Raises:
        UserError: If the fit has no end.
    """
    total, every = planned_steps(trainer), 1
    if falls == "epoch":
        trainer.fit_loop.setup_data()  # which tells how many batches an epoch has
        every = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    return LambdaLR(optimizer, lambda step: cosine_with_warmup(step, total, warmup, every=every))
