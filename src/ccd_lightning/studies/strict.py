"""YAML files whose keys are checked: each mistake is one sentence that names the file and the key."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from ccd_lightning.errors import UserError
from ccd_lightning.reading import read_text

T = TypeVar("T")
NAME = re.compile(r"\w[\w.+-]*")


def read_yaml(file: Path) -> Any:
    """The content of a YAML file, in which no key stands twice.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        return yaml.load(read_text(file), _Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{file}{line}: {error.problem}.") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{file}: cannot be read ({' '.join(str(error).split())}).") from error


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set[str]()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


class StrictReader:
    """Takes values from a file's content, and refuses what they should not be.

    Args:
        file: Named in messages.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def named(self, value: Any, key: str) -> dict[str, Any]:
        """A mapping from names, at least one, that can be names of folders."""
        given = self.mapping(value, key, None, ())
        if not given:
            self.refuse(key, "give at least one")
        for name in given:
            if not NAME.fullmatch(name):
                self.refuse(f"{key}.{name}", "names consist of letters, digits and . _ + -, as folders have them")
        return given

    def mapping(
        self, value: Any, key: str, allowed: Collection[str] | None, required: Collection[str] = ()
    ) -> dict[str, Any]:
        """A mapping with no keys but those allowed (any, where None), and all of the required ones."""
        if not isinstance(value, dict):
            self.refuse(key, f"expected {' or '.join(allowed) if allowed else 'names'} with values")
        given = {str(name): content for name, content in value.items()}
        prefix = f"{key}." if key else ""
        for name in given if allowed is not None else ():
            self.known(name, allowed or (), f"{prefix}{name}", "key")
        for name in required:
            if given.get(name) is None:
                self.refuse(f"{prefix}{name}", "this key is missing")
        return given

    def known(self, name: str, names: Collection[str], key: str, what: str) -> None:
        """Refuses a name that is none of those there are, which `what` says."""
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}."
            raise UserError(f"{self.file}: {key}: there is no {what} {name!r}; {hint}")

    def values(self, value: Any, kind: type[T], key: str, what: str) -> list[T]:
        """A list of values of a type, or one value."""
        found = value if isinstance(value, list) else [value]
        if not all(type(one) is kind for one in found):
            self.refuse(key, f"expected {what}")
        return found

    def text(self, value: Any, key: str) -> str:
        """A text."""
        if not isinstance(value, str):
            self.refuse(key, "expected text")
        return value

    def optional_text(self, value: Any, key: str) -> str | None:
        """A text or null."""
        return None if value is None else self.text(value, key)

    def refuse(self, key: str, message: str) -> NoReturn:
        """Reports a mistake.

        Raises:
            UserError: Always.
        """
        raise UserError(f"{self.file}: {f'{key}: ' if key else ''}{message}.")


def flat_options(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Options by their dotted names, from a mapping that may be nested; values as on a command line."""
    for name, content in value.items():
        if isinstance(content, dict) and content:
            yield from flat_options(content, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", content if isinstance(content, str) else json.dumps(content)
