"""Reads YAML files strictly; errors are reported in one sentence with the file and the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ccd_lightning.errors import UserError
from ccd_lightning.reading import read_text


def read_yaml(file: Path) -> Any:
    """Returns the content of a YAML file, in which no key may be repeated.

    Raises:
        UserError: If the file cannot be read, or a key is repeated.
    """
    try:
        return yaml.load(read_text(file), _Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{file}{line}: {error.problem}. Write it as YAML: KEY: VALUE.") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}: not UTF-8 text, as YAML files must be. Give another file, or save it in UTF-8."
        ) from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"{file}: cannot be read ({reason}). Give another file.") from error


def read_mapping(file: Path, what: str) -> dict[Any, Any]:
    """Returns the content of a YAML file that must contain a mapping.

    Args:
        file: Path of the file.
        what: Description of the expected content, used in the error message.

    Raises:
        UserError: If the file cannot be read, or does not contain a mapping.
    """
    content = read_yaml(file)
    if not isinstance(content, dict):
        found = "it is empty" if content is None else f"it holds a {type(content).__name__}"
        raise UserError(f"{file}: {found}, but must hold {what}.")
    return content


class _Loader(yaml.SafeLoader):
    """Rejects repeated keys in a mapping, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set[str]()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)
