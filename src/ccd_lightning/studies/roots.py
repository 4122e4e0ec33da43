"""The folders of a study's data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ccd_lightning.commands import expand
from ccd_lightning.errors import UserError
from ccd_lightning.studies.configs import SET, class_in, find_config
from ccd_lightning.studies.definition import Study

SYNTHETIC = "Synthetic"  # what the classes of data modules begin with that make their images


def find_roots(study: Study, folder: Path, given: Mapping[str, Path]) -> dict[str, Path]:
    """The folders of a study's data sets, whether they are there or not.

    Args:
        study: The study.
        folder: Of all sets, to which their roots are relative.
        given: Roots of single sets, which go before that of the study.

    Raises:
        UserError: If one is given for a set that the study has not.
    """
    for name in given:
        if name not in study.sets:
            raise UserError(f"--root {name}=DIR: {study.file} has no data set {name!r}, but {', '.join(study.sets)}.")
    return {name: given.get(name) or folder / expand(data.root) for name, data in study.sets.items()}


def check_roots(study: Study, roots: Mapping[str, Path], needed: Iterable[str]) -> None:
    """Refuses to run on data sets that are not there, and are not made by their data modules either.

    Raises:
        UserError: If there is one.
    """
    for name in needed:
        makes_images = (study.sets[name].data or _data_of(study, name)).rpartition(".")[2].startswith(SYNTHETIC)
        if not roots[name].exists() and not makes_images:
            raise UserError(
                f"{study.file}: sets.{name}: {roots[name]}: no such folder. Give the folder that holds"
                f" {study.sets[name].root} with --data_root DIR, or this set's own with --root {name}=DIR; --sets NAME"
                " ... runs other sets only."
            )


def _data_of(study: Study, name: str) -> str:
    """The class of the data module that the first detector's config names."""
    config = next(iter(study.detectors.values())).method.config
    return class_in(find_config(config.replace(SET, name), study.file, "detectors"), "data") if config else ""
