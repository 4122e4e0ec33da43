"""Checks of the values of a manifest's row, which may come from anyone's own layout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from ccd_lightning.data.naming import is_normal
from ccd_lightning.errors import UserError
from ccd_lightning.writing import short_text

Split = Literal["train", "test"]
SPLITS = get_args(Split)
GOOD = "good"


def checked_path(path: object) -> Path:
    """Returns the path of an image.

    Raises:
        UserError: If it is neither a path nor a text, or empty.
    """
    if isinstance(path, Path):
        return path
    if not isinstance(path, str) or not path:
        raise UserError(f"A row of the manifest has the path {_shown(path)}, but needs the Path of an image.")
    return Path(path)


def checked_masks(masks: object, image: Path) -> tuple[Path, ...]:
    """Returns the paths of an image's masks. They may be given as a tuple or list of paths or texts; None is no mask.

    Raises:
        UserError: If they are anything else.
    """
    if masks is None or (isinstance(masks, tuple) and not masks):
        return ()
    if not isinstance(masks, (tuple, list)) or not all(isinstance(mask, (Path, str)) for mask in masks):
        raise UserError(f"{image}: its masks are {_shown(masks)}, but must be a tuple of paths, such as (mask,) or ().")
    return tuple(map(Path, masks))


def checked_kind(anomaly_type: object, image: Path) -> str:
    """Returns the kind of an image. All names of normal images (`naming.NORMAL_NAMES`) become `GOOD`.

    Raises:
        UserError: If it is not a text.
    """
    if not isinstance(anomaly_type, str):
        raise UserError(
            f"{image}: its anomaly_type is {_shown(anomaly_type)}, but must be a text: {GOOD!r} for normal images."
        )
    return GOOD if is_normal(anomaly_type) else anomaly_type


def check_split(split: object, image: Path) -> None:
    """Checks the split of an image.

    Raises:
        UserError: If there is no such split.
    """
    if split not in SPLITS:
        raise UserError(f"{image}: its split is {_shown(split)}, but must be 'train' or 'test'.")


def check_group(group: object, image: Path) -> None:
    """Checks the patient or video of an image.

    Raises:
        UserError: If it is neither a text nor None.
    """
    if group is not None and not isinstance(group, str):
        raise UserError(f"{image}: its group is {_shown(group)}, but must be a text, or None if it is not known.")


def _shown(value: object) -> str:
    return short_text(repr(value))
