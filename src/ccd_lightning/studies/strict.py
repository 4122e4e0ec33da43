"""YAML files with validated keys. Each error is one sentence that names the file and the key."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ccd_lightning.errors import UserError
from ccd_lightning.similar import did_you_mean, similar

T = TypeVar("T")
NAME = re.compile(r"\w[\w.+-]*")


class StrictReader:
    """Reads values from the content of a file, and validates them.

    Args:
        file: Path of the file, used in error messages.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def named(self, value: Any, key: str) -> dict[str, Any]:
        """Returns a mapping with at least one key, whose keys are valid folder names."""
        given = self.mapping(value, key, None, ())
        if not given:
            self.refuse(key, "give at least one")
        for name in given:
            if not NAME.fullmatch(name):
                self.refuse(f"{key}.{name}", "give a name of letters, digits and . _ + -, as folders have them")
        return given

    def mapping(
        self, value: Any, key: str, allowed: Collection[str] | None, required: Collection[str] = ()
    ) -> dict[str, Any]:
        """Returns a mapping that has only allowed keys (any, if None) and all required keys."""
        if not isinstance(value, dict):
            self.refuse(key, f"expected {' or '.join(allowed) if allowed else 'names'} with values")
        given = {str(name): content for name, content in value.items()}
        prefix = f"{key}." if key else ""
        for name in given if allowed is not None else ():
            self.known(name, allowed or (), f"{prefix}{name}", "key")
        for name in required:
            if given.get(name) is None:
                self.refuse(f"{prefix}{name}", "this key is missing; add it")
        return given

    def known(self, name: str, names: Collection[str], key: str, what: str) -> None:
        """Checks that a name is one of the known names. `what` describes them in the error message."""
        if name not in names:
            hint = did_you_mean(similar(name, names), f"there are {', '.join(names)}.")
            raise UserError(f"{self.file}: {key}: there is no {what} {name!r}; {hint}")

    def values(self, value: Any, kind: type[T], key: str, what: str) -> list[T]:
        """Returns a list of values of a type, from a list or a single value."""
        found = value if isinstance(value, list) else [value]
        if not all(type(one) is kind for one in found):
            self.refuse(key, f"expected {what}")
        return found

    def text(self, value: Any, key: str) -> str:
        """Returns a text."""
        if not isinstance(value, str):
            self.refuse(key, "expected text")
        return value

    def optional_text(self, value: Any, key: str) -> str | None:
        """Returns a text or None."""
        return None if value is None else self.text(value, key)

    def refuse(self, key: str, message: str) -> NoReturn:
        """Reports an error.

        Raises:
            UserError: Always.
        """
        raise UserError(f"{self.file}: {f'{key}: ' if key else ''}{message}.")


def flat_options(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yields options by their dotted names from a mapping, which may be nested, with values as on the command line."""
    for name, content in value.items():
        if isinstance(content, dict) and content:
            yield from flat_options(content, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", content if isinstance(content, str) else json.dumps(content)
