"""Layouts of a user's own in `ccd data`: data modules named by their import path."""

from __future__ import annotations

from pathlib import Path
from pydoc import locate
from typing import TYPE_CHECKING, Any

from ccd_lightning.cli.own_code import IMPORT_PATH, describe_class
from ccd_lightning.data.sources import AXIAL
from ccd_lightning.errors import UserError

if TYPE_CHECKING:
    from ccd_lightning.data.manifest import Manifest


def names_class(layout: str) -> bool:
    """Returns whether the value of --layout is an import path, rather than a table or the name of a layout."""
    return IMPORT_PATH.fullmatch(layout) is not None and not layout.lower().endswith(".csv")


def read_own_layout(name: str, root: Path, seed: int, groups: bool, axis: int) -> tuple[Manifest, str]:
    """Reads a data set with a data module, as `ccd fit --data NAME --data.root ROOT` does.

    Args:
        name: Import path of the data module's class.
        root: Folder of the data set.
        seed: Seed of the split, if the data module draws one.
        groups: Whether images of the same patient or video stay together.
        axis: Axis along which volumes are cut into slices.

    Returns:
        The manifest, and the name of its layout.

    Raises:
        UserError: If there is no such class, or it needs other options than the root.
    """
    from ccd_lightning.data.datamodule import AnomalyDataModule

    if reason := describe_class(name, AnomalyDataModule):
        raise UserError(f"--layout: {reason}.")
    found = locate(name)
    if not (isinstance(found, type) and issubclass(found, AnomalyDataModule)):
        raise UserError(f"--layout is {name}, which is no subclass of AnomalyDataModule.")
    options: dict[str, Any] = {"groups": groups} if not groups else {}  # a class need not accept all options
    options |= {"axis": axis} if axis != AXIAL else {}
    options |= {"split_seed": seed} if seed else {}
    try:
        data = found(str(root), **options)
    except TypeError as error:
        raise UserError(
            f"--layout {name}: the class cannot be called with {', '.join(['root', *options])} alone ({error})."
            f" Fit it, and check the table of its run: --layout runs/NAME/latest/manifest.csv."
        ) from error
    return data.checked_manifest(), data.found_layout
