"""Ranges of the trainer's options that Lightning itself does not check, or checks in the middle of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace

from ccd_lightning.ranges import at_least, refuse

LEAST = {
    "accumulate_grad_batches": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "check_val_every_n_epoch": 1,
    "min_epochs": 0,
    "min_steps": 0,
}


def check_trainer(settings: Mapping[str, Any] | Namespace, command: str) -> None:
    """Refuses options of the trainer that are out of their range.

    Args:
        settings: The options as they were parsed.
        command: "fit" or another one, of which only a fit needs batches to learn from.

    Raises:
        RangeError: It names the option.
    """
    if not isinstance(settings, Mapping | Namespace):
        refuse("trainer", settings, "a mapping of options")
    for name, low in LEAST.items():
        value = settings.get(name)
        if isinstance(value, int | float):
            at_least(f"trainer.{name}", value, low)
    if command == "fit":
        for name in ("max_steps", "max_epochs", "limit_train_batches"):
            if settings.get(name) == 0:
                refuse(f"trainer.{name}", 0, "1 or more: nothing would be fitted. Give another value, or leave it out")
