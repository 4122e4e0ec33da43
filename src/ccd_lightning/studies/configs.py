"""Configs named in a study file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ccd_lightning import shipped
from ccd_lightning.commands import expand
from ccd_lightning.errors import UserError
from ccd_lightning.reading import read_text
from ccd_lightning.similar import did_you_mean, similar

SET = "<set>"  # placeholder for the data set's name in the name of a config


def find_config(value: str, file: Path, key: str) -> Path:
    """Finds a config: relative to the study file, relative to the working directory, or shipped.

    Raises:
        UserError: If there is none.
    """
    path = expand(value)
    found = next((one for one in (file.parent / path, path) if one.is_file()), None) or shipped.find(value)
    if found is None:
        names = shipped.names()
        hint = did_you_mean(similar(value, names), f"shipped: {', '.join(names)}.")
        raise UserError(f"{file}: {key}: there is no config {value}; {hint}")
    return found


def class_in(config: Path, section: str) -> str:
    """Returns the class in a config's section, "model" or "data"; "" if it names none."""
    content = config_content(config)
    part = content.get(section) if isinstance(content, dict) else None
    return str(part.get("class_path", "") if isinstance(part, dict) else part or "")


def config_content(config: Path) -> Any:
    """Returns the content of a config, with parts from other files inserted.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        content = yaml.safe_load(read_text(config))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{config}: cannot be read ({' '.join(str(error).split())}).") from error
    return _with_parts(content, config.parent)


def _with_parts(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {name: _with_parts(part, folder) for name, part in value.items()}
    if isinstance(value, list):
        return [_with_parts(part, folder) for part in value]
    if isinstance(value, str) and value.endswith((".yaml", ".yml")) and (folder / value).is_file():
        return config_content(folder / value)
    return value
