"""The configs and studies that come with the package, by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

TRAINER = "trainer"  # the folder of configs that say how to train, not what; they are added to another one
STUDIES = "studies"  # the folder of studies, which are no configs


def folder() -> Path:
    """Where they are: inside the installed package, or in the checkout that it runs from."""
    inside = Path(str(files("ccd_lightning"))) / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


def names() -> list[str]:
    """The names that `--config` takes, such as `ccd_kvasir` and `trainer/gpu`."""
    return [path.stem for path in sorted(folder().glob("*.yaml"))] + [
        f"{TRAINER}/{path.stem}" for path in sorted((folder() / TRAINER).glob("*.yaml"))
    ]


def find(name: str) -> Path | None:
    """The file of a config, None where no config has this name."""
    return folder() / f"{name}.yaml" if name in names() else None


def value(name: str, key: str) -> Any:
    """What a config says itself, not in a file that it names; None where it says nothing.

    Args:
        name: Of the config.
        key: Names of the settings above it and its own, with dots between.
    """
    file = find(name)
    found: Any = yaml.safe_load(file.read_text(encoding="utf-8")) if file else None
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def study_names() -> list[str]:
    """The names that `ccd study` takes, such as `published`."""
    return [path.stem for path in sorted((folder() / STUDIES).glob("*.yaml"))]


def find_study(name: str) -> Path | None:
    """The file of a study, None where no study has this name."""
    return folder() / STUDIES / f"{name}.yaml" if name in study_names() else None
