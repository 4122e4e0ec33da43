"""Configs and studies that are included in the package, by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

TRAINER = "trainer"  # folder of configs with only trainer settings, which are combined with another config
STUDIES = "studies"  # folder of studies, which are not configs


def folder() -> Path:
    """Returns the folder of the configs: inside the installed package, or in the source checkout."""
    inside = Path(str(files("ccd_lightning"))) / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


def names() -> list[str]:
    """Returns the names that `--config` accepts, such as `ccd_kvasir` and `trainer/gpu`."""
    return [path.stem for path in sorted(folder().glob("*.yaml"))] + [
        f"{TRAINER}/{path.stem}" for path in sorted((folder() / TRAINER).glob("*.yaml"))
    ]


def find(name: str) -> Path | None:
    """Returns the file of a config, or None if no config has this name."""
    return folder() / f"{name}.yaml" if name in names() else None


def value(name: str, key: str) -> Any:
    """Returns the value of a setting in a config, ignoring files that it includes; None if it is not set.

    Args:
        name: Name of the config.
        key: Dotted name of the setting.
    """
    file = find(name)
    found: Any = yaml.safe_load(file.read_text(encoding="utf-8")) if file else None
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def study_names() -> list[str]:
    """Returns the names that `ccd study` accepts, such as `published`."""
    return [path.stem for path in sorted((folder() / STUDIES).glob("*.yaml"))]


def find_study(name: str) -> Path | None:
    """Returns the file of a study, or None if no study has this name."""
    return folder() / STUDIES / f"{name}.yaml" if name in study_names() else None
