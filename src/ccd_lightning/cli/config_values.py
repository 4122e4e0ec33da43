"""Checks of config values: whether they are plain values, by their arguments' types, or created by YAML tags."""

from __future__ import annotations

import dataclasses
import types
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

MAX_VALUES = 100_000  # maximum number of values in a config; those of this program have some hundred
PLAIN = (int, float, bool, str, type(None), Path, timedelta)


def argument_hints(known: type) -> dict[str, Any]:
    """Returns the types of a constructor's arguments, including those of base classes."""
    found: dict[str, Any] = {}
    for base in reversed(known.__mro__):
        try:
            found |= get_type_hints(vars(base)["__init__"]) if "__init__" in vars(base) else {}
        except (NameError, TypeError):  # then none of its arguments is treated as plain
            continue
    return found


def _parts(hint: Any) -> tuple[Any, ...] | None:
    """Returns the types in a union or a container type, or None for any other type."""
    if get_origin(hint) in (Union, types.UnionType, tuple, list, dict):
        return tuple(part for part in get_args(hint) if part is not Ellipsis)
    return None


def is_plain(hint: Any) -> bool:
    """Returns whether values of a type are numbers, text or containers of them, for which nothing is imported."""
    if (parts := _parts(hint)) is not None:
        return all(map(is_plain, parts))
    if dataclasses.is_dataclass(hint):
        return all(map(is_plain, get_type_hints(hint).values()))
    return hint in PLAIN or get_origin(hint) is Literal


def fields_of(hint: Any) -> dict[str, Any] | None:
    """Returns the fields of a plain dataclass, or of one among the types of a union; None if there is none."""
    for part in (hint, *(_parts(hint) or ())):
        if dataclasses.is_dataclass(part) and is_plain(part):
            return get_type_hints(part)
    return None


def takes_text(hint: Any) -> bool:
    """Returns whether a value of a plain type may be text."""
    if (parts := _parts(hint)) is not None:
        return any(map(takes_text, parts))
    return hint in (str, Path, timedelta) or get_origin(hint) is Literal


def refuse_special_nodes(config: Any) -> None:
    """Raises an error for values created by YAML tags, and for more values than a config has.

    Raises:
        ValueError: If there are too many values.
        TypeError: If there is a value of another type, or text with a zero byte.
    """
    rest, seen = [config], 0
    while rest:
        value, seen = rest.pop(), seen + 1
        if seen > MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES} values")
        if isinstance(value, dict):
            rest += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            rest += value
        elif isinstance(value, str) and "\0" in value:
            raise TypeError("it holds text with a zero byte")
        elif not isinstance(value, (str, int, float, type(None))):
            raise TypeError(f"it holds a {type(value).__name__}")
