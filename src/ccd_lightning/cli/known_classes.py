"""Classes that a checkpoint's config may name."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, callbacks, loggers
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from torch.optim import Optimizer, lr_scheduler

from ccd_lightning.callbacks.compiling import CompileEncoder
from ccd_lightning.data import datasets as sets
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.modules.loading import DETECTORS
from ccd_lightning.modules.pmsacl import PMSACL
from ccd_lightning.transforms import strong
from ccd_lightning.transforms.medmix import MedMix
from ccd_lightning.transforms.pretext import PretextViews

SYNTHETIC = (sets.SyntheticColonoscopy, sets.SyntheticFundus)  # generate their images if they do not exist
OWN: tuple[Any, ...] = (
    *(CCD, PMSACL, *DETECTORS, PretextViews),
    *(strong.Identity, strong.Permutation, strong.Rotation, strong.Cutout, strong.Noise, MedMix),
    *(AnomalyDataModule, sets.Folder, sets.HyperKvasir, sets.LAG, sets.LiuColonoscopy, *SYNTHETIC),
)
TRAINING = (callbacks.ModelCheckpoint, callbacks.EarlyStopping, callbacks.LearningRateMonitor)


def _paths(*classes: Any) -> dict[str, type]:
    """Returns classes by the import paths used in configs."""
    names = {f"{value.__module__}.{value.__qualname__}": value for value in classes}
    for package in ("callbacks", "loggers", "strategies"):
        short = [value for value in classes if value.__module__.startswith(f"lightning.pytorch.{package}")]
        names |= {f"lightning.pytorch.{package}.{value.__name__}": value for value in short}
    return names


def _of_package(package: Any, base: type) -> dict[str, type]:
    """Returns the subclasses of a base class in a package, without the base itself, which accepts any arguments."""
    classes = [value for value in vars(package).values() if isinstance(value, type) and value is not base]
    found = [value for value in classes if issubclass(value, base)]
    return _paths(*found) | {f"{package.__name__}.{value.__name__}": value for value in found}


def usable() -> dict[str, type]:
    """Returns the classes that a checkpoint's config may instantiate."""
    return _paths(*OWN, *TRAINING) | _of_package(torch.optim, Optimizer)


def mentionable() -> dict[str, type]:
    """Returns these classes, and those that it may also name in parts that are not used."""
    stock = [*_of_package(callbacks, Callback).values(), *_of_package(loggers, Logger).values()]
    return usable() | _paths(*stock, DDPStrategy, CompileEncoder) | _of_package(lr_scheduler, lr_scheduler.LRScheduler)
