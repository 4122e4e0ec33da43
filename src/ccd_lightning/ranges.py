"""Range checks of options, with uniform error messages, for all constructors."""

from __future__ import annotations

import math
from typing import NoReturn

from ccd_lightning.errors import UserError

FAMILY = "data.views.family"  # option of the strong augmentation family


class RangeError(UserError, ValueError):
    """Raised if an option is out of range; also a `ValueError`, for calls from Python."""


def at_least(option: str, value: float | None, low: float, note: str = "") -> None:
    """Checks that a value is finite and at least `low`; None, which means no limit, is accepted.

    Args:
        option: Full key of the option, as on the command line.
        value: Value of the option.
        low: Minimum.
        note: Text that follows the range in the error message.

    Raises:
        RangeError: If the value is out of range.
    """
    if value is not None and not low <= value < math.inf:
        refuse(option, value, f"{low:g} or more{note}")


def above(option: str, value: float, low: float, note: str = "") -> None:
    """Checks that a value is finite and greater than `low`; arguments and errors are those of `at_least`."""
    if not low < value < math.inf:
        refuse(option, value, f"above {low:g}{note}")


def within(option: str, value: float, low: float, high: float, note: str = "") -> None:
    """Checks that low <= value <= high; other arguments and errors are those of `at_least`."""
    if not low <= value <= high:
        refuse(option, value, f"from {low:g} to {high:g}{note}")


def between(option: str, value: float, low: float, high: float, note: str = "") -> None:
    """Checks that low < value < high; other arguments and errors are those of `at_least`."""
    if not low < value < high:
        refuse(option, value, f"between {low:g} and {high:g}{note}")


def ascending(option: str, value: tuple[float, float], low: float, high: float) -> None:
    """Checks that low < value[0] <= value[1] <= high; other arguments and errors are those of `at_least`."""
    if not low < value[0] <= value[1] <= high:
        refuse(option, list(value), f"two numbers in ascending order, above {low:g} and up to {high:g}")


def seed_in_range(option: str, value: int) -> None:
    """Checks that a value is a valid seed for both NumPy and torch; arguments and errors are those of `at_least`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        refuse(option, value, f"a whole number from 0 to {2**32 - 1}")


def refuse(option: str, value: object, range_: str) -> NoReturn:
    """Raises the error for an invalid option.

    Args:
        option: Full key of the option.
        value: Value of the option.
        range_: Description of the valid range, used in the error message.

    Raises:
        RangeError: Always.
    """
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    raise RangeError(f"{option} is {shown}, but must be {range_}.")
