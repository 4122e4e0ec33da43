"""Argument parser of LightningCLI."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from ccd_lightning.cli.callbacks import with_checkpoints
from ccd_lightning.errors import UserError


class Parser(LightningArgumentParser):
    """A parser whose dumped configs include the checkpoints that a fit keeps, and that rejects abbreviated options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # An abbreviation would be accepted for whichever option begins with it.
        super().__init__(*args, **{"allow_abbrev": False} | kwargs)

    def dump(self, cfg: Namespace, *args: Any, **kwargs: Any) -> str:
        """Writes a config as YAML."""
        return str(super().dump(with_checkpoints(cfg), *args, **kwargs))


def seed_of_data(value: Any) -> int:
    """Returns the seed of the data, which equals `seed_everything`.

    Raises:
        UserError: If it is not a seed. LightningCLI also accepts true and false, which draw a random seed or set none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise UserError(
            f"seed_everything is {str(value).lower()}, but must be a whole number from 0 to {2**32 - 1}. For other"
            " random numbers, give another one."
        )
    return value
