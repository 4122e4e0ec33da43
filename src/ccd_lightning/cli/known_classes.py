"""The classes that a checkpoint's config may name."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, callbacks, loggers
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from torch.optim import Optimizer, lr_scheduler

from ccd_lightning.data import datasets as sets
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.modules.loading import DETECTORS
from ccd_lightning.modules.pmsacl import PMSACL
from ccd_lightning.transforms import strong
from ccd_lightning.transforms.medmix import MedMix
from ccd_lightning.transforms.pretext import PretextViews

SYNTHETIC = (sets.SyntheticColonoscopy, sets.SyntheticFundus)  # whose images are made where they are not there
OWN: tuple[Any, ...] = (
    *(CCD, PMSACL, *DETECTORS, PretextViews),
    *(strong.Identity, strong.Permutation, strong.Rotation, strong.Cutout, strong.Noise, MedMix),
    *(AnomalyDataModule, sets.Folder, sets.HyperKvasir, sets.LAG, sets.LiuColonoscopy, *SYNTHETIC),
)
TRAINING = (callbacks.ModelCheckpoint, callbacks.EarlyStopping, callbacks.LearningRateMonitor)


def _paths(*classes: Any) -> dict[str, type]:
    """Classes by the import paths that configs name them by."""
    names = {f"{value.__module__}.{value.__qualname__}": value for value in classes}
    for package in ("callbacks", "loggers", "strategies"):
        short = [value for value in classes if f".{package}." in f"{value.__module__}."]
        names |= {f"lightning.pytorch.{package}.{value.__name__}": value for value in short}
    return names


def _of_package(package: Any, base: type) -> dict[str, type]:
    """The classes of a package that are made of a base class, without that class itself, whose arguments can be any."""
    classes = [value for value in vars(package).values() if isinstance(value, type) and value is not base]
    found = [value for value in classes if issubclass(value, base)]
    return _paths(*found) | {f"{package.__name__}.{value.__name__}": value for value in found}


def usable() -> dict[str, type]:
    """The classes that a checkpoint's config may have made."""
    return _paths(*OWN, *TRAINING) | _of_package(torch.optim, Optimizer)


def mentionable() -> dict[str, type]:
    """Those that it may name besides, in parts that are not used."""
    stock = [*_of_package(callbacks, Callback).values(), *_of_package(loggers, Logger).values()]
    return usable() | _paths(*stock, DDPStrategy) | _of_package(lr_scheduler, lr_scheduler.LRScheduler)
