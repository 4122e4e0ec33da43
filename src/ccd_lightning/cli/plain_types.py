"""Types whose values are numbers, text or groups of them, for which nothing is ever imported."""

from __future__ import annotations

import dataclasses
import types
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

PLAIN = (int, float, bool, str, type(None), Path, timedelta)


def argument_types(known: type) -> dict[str, Any]:
    """Types of a constructor's arguments, those that base classes take included."""
    found: dict[str, Any] = {}
    for base in reversed(known.__mro__):
        try:
            found |= get_type_hints(vars(base)["__init__"]) if "__init__" in vars(base) else {}
        except (NameError, TypeError):  # then none of its arguments counts as plain
            continue
    return found


def _parts(hint: Any) -> tuple[Any, ...] | None:
    """The types in a union or a container of types; None for any other type."""
    if get_origin(hint) in (Union, types.UnionType, tuple, list, dict):
        return tuple(part for part in get_args(hint) if part is not Ellipsis)
    return None


def is_plain(hint: Any) -> bool:
    """Whether values of a type are numbers, text or groups of them, for which nothing is ever imported."""
    if (parts := _parts(hint)) is not None:
        return all(map(is_plain, parts))
    if dataclasses.is_dataclass(hint):
        return all(map(is_plain, get_type_hints(hint).values()))
    return hint in PLAIN or get_origin(hint) is Literal


def takes_text(hint: Any) -> bool:
    """Whether a value of a plain type may be text."""
    if (parts := _parts(hint)) is not None:
        return any(map(takes_text, parts))
    return hint in (str, Path, timedelta) or get_origin(hint) is Literal
