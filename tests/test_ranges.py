"""Ranges of options: what is in one passes, and what is not is reported with the option and the range."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from ccd_lightning import ranges
from ccd_lightning.errors import UserError

NONE = (math.nan, math.inf, -math.inf)
RANGES: dict[str, tuple[Callable[..., None], tuple[Any, ...], tuple[Any, ...]]] = {
    "0 or more": (partial(ranges.at_least, low=0), (0, 0.0, 1e300, None), (-1, -1e-300)),
    "above 0": (partial(ranges.above, low=0), (1e-300, 3), (0, -1)),
    "from 0 to 1": (partial(ranges.within, low=0, high=1), (0, 0.5, 1), (-0.1, 1.1)),
    "between 0 and 1": (partial(ranges.between, low=0, high=1), (0.1, 0.9), (0, 1, 2)),
}


@pytest.mark.parametrize("message", RANGES)
def test_values_out_of_range_are_reported(message: str) -> None:
    check, good, bad = RANGES[message]
    for value in good:
        check("model.option", value)
    for value in (*bad, *NONE):
        with pytest.raises(UserError, match=rf"^model\.option is .+, but must be {message}\.$"):
            check("model.option", value)


@pytest.mark.parametrize("wrong", [(0, 0.5), (0.5, 0.2), (0.5, 1.5), (math.nan, 1), (0.5, math.nan)])
def test_two_numbers_must_be_in_ascending_order(wrong: tuple[float, float]) -> None:
    ranges.ascending("data.views.scale", (0.2, 0.2), 0, 1)
    with pytest.raises(
        ValueError, match=r"data\.views\.scale is .*, but must be two numbers in ascending order, above 0 and up"
    ):
        ranges.ascending("data.views.scale", wrong, 0, 1)


@pytest.mark.parametrize("wrong", [-1, 2**32, 1.5, True, "3"])
def test_seeds_are_whole_numbers_of_32_bits(wrong: Any) -> None:
    for good in (0, 2**32 - 1):
        ranges.seed_in_range("seed", good)
    with pytest.raises(UserError, match=r"seed is .*, but must be a whole number from 0 to 4294967295"):
        ranges.seed_in_range("seed", wrong)
