"""Ranges of trainer options that Lightning does not check, or checks only during a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace

from ccd_lightning.ranges import at_least, refuse

MINIMUM = {
    "accumulate_grad_batches": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "check_val_every_n_epoch": 1,
    "min_epochs": 0,
    "min_steps": 0,
}


def check_trainer(settings: Mapping[str, Any] | Namespace, command: str) -> None:
    """Checks that trainer options are within their range.

    Args:
        settings: The parsed options.
        command: Name of the command. Only "fit" needs batches to train on.

    Raises:
        RangeError: If an option is out of its range. The message names it.
    """
    if not isinstance(settings, Mapping | Namespace):
        refuse("trainer", settings, "a mapping of options")
    for name, low in MINIMUM.items():
        value = settings.get(name)
        if isinstance(value, int | float):
            at_least(f"trainer.{name}", value, low)
    if command == "fit":
        for name in ("max_steps", "max_epochs", "limit_train_batches"):
            if settings.get(name) == 0:
                refuse(f"trainer.{name}", 0, "1 or more: nothing would be fitted. Give another value, or leave it out")
