"""Checks of a manifest from any source, before its images are read."""

from __future__ import annotations

from dataclasses import replace

from ccd_lightning.data.manifest import Manifest
from ccd_lightning.data.recognition import absent
from ccd_lightning.data.sources import file_of
from ccd_lightning.errors import UserError
from ccd_lightning.writing import short_text


def require_manifest(found: object, source: str, groups: bool = True) -> Manifest:
    """Returns a manifest, without groups if they are not wanted.

    Args:
        found: What the `manifest` method of a data module returned.
        source: Name of the data module, used in error messages.
        groups: Whether images of the same patient or video stay together.

    Raises:
        UserError: If it is not a manifest.
    """
    if not isinstance(found, Manifest):
        raise UserError(
            f"{source}.manifest returned {short_text(repr(found))}, but must return a Manifest: end it with"
            " `return Manifest(self.root, rows)`."
        )
    return found if groups else replace(found, rows=[replace(row, group=None) for row in found.rows])


def require_files(manifest: Manifest, source: str) -> None:
    """Checks that the images and masks exist. Nothing is opened.

    Raises:
        UserError: If one does not.
    """
    files = (file_of(path) for row in manifest.rows for path in (row.path, *row.masks))
    if missing := next(absent(files), None):
        row = next(row for row in manifest.rows if missing in map(file_of, (row.path, *row.masks)))
        what = "image" if file_of(row.path) == missing else f"mask of {row.path}"
        raise UserError(f"{missing}: no such file, but {source} gives it as the {what}. Add it, or correct its path.")
