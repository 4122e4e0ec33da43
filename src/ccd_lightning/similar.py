"""Suggestions for names that do not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def similar(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """Returns the known names that are similar to a name, the most similar one first.

    Args:
        name: The name that does not exist.
        known: Names that exist.
        most: Maximum number of names to return.
        cutoff: Lowest similarity, in [0, 1].
    """
    return difflib.get_close_matches(name, list(known), n=most, cutoff=cutoff)


def did_you_mean(names: Sequence[str], otherwise: str) -> str:
    """Returns the question whether one of some names was meant, or if there are none, another text."""
    return f"did you mean {' or '.join(names)}?" if names else otherwise
