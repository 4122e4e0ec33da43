"""Ranges of options: one check, and one sentence, for all constructors."""

from __future__ import annotations

import math
from typing import NoReturn

from ccd_lightning.errors import UserError

FAMILY = "data.views.family"  # the option that strong augmentations are given by


class RangeError(UserError, ValueError):
    """An option that is out of its range; a `ValueError` for those who call a constructor themselves."""


def at_least(option: str, value: float | None, low: float, note: str = "") -> None:
    """Refuses what is below a number, or infinite, or no number; None, which means no limit, passes.

    Args:
        option: Its full key, as it is given on the command line.
        value: What was given.
        low: The least it may be.
        note: What else there is to know, after the range.

    Raises:
        RangeError: If it is out of range.
    """
    if value is not None and not low <= value < math.inf:
        refuse(option, value, f"{low:g} or more{note}")


def above(option: str, value: float, low: float, note: str = "") -> None:
    """Refuses what is not above a number, or infinite, or no number; arguments and error as in `at_least`."""
    if not low < value < math.inf:
        refuse(option, value, f"above {low:g}{note}")


def within(option: str, value: float, low: float, high: float, note: str = "") -> None:
    """Refuses what is not from one number to another, or no number; arguments and error as in `at_least`."""
    if not low <= value <= high:
        refuse(option, value, f"from {low:g} to {high:g}{note}")


def between(option: str, value: float, low: float, high: float, note: str = "") -> None:
    """Refuses what is not between two numbers, neither of which it may be; arguments and error as in `at_least`."""
    if not low < value < high:
        refuse(option, value, f"between {low:g} and {high:g}{note}")


def rising(option: str, value: tuple[float, float], low: float, high: float) -> None:
    """Refuses two numbers that do not rise, or are not above the one end and up to the other; error as in `at_least`.

    Two equal numbers rise.
    """
    if not low < value[0] <= value[1] <= high:
        refuse(option, list(value), f"two numbers that rise, above {low:g} and up to {high:g}")


def seed_in_range(option: str, value: int) -> None:
    """Refuses what is no seed of NumPy's and torch's generators alike; error as in `at_least`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        refuse(option, value, f"a whole number from 0 to {2**32 - 1}")


def refuse(option: str, value: object, range_: str) -> NoReturn:
    """Says that an option has to be something else.

    Args:
        option: Its full key.
        value: What was given.
        range_: What it has to be, in words.

    Raises:
        RangeError: Always.
    """
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    raise RangeError(f"{option} is {shown}, but must be {range_}.")
