"""Checks of a manifest from any source, before its images are read."""

from __future__ import annotations

from dataclasses import replace

from ccd_lightning.data.listing import Listing
from ccd_lightning.data.manifest import Manifest
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


def require_files(manifest: Manifest, source: str, masks: bool = True) -> Manifest:
    """Checks that the images and masks exist. Nothing is opened.

    Args:
        manifest: Result of a layout of the user's own.
        source: Name of the data module, used in error messages.
        masks: Whether masks were asked for. Otherwise it is not known which files are masks.

    Returns:
        The manifest, with the number of image files that it leaves out, unless it says itself what it does.

    Raises:
        UserError: If one does not exist.
    """
    listing = Listing()
    files = (file_of(path) for row in manifest.rows for path in (row.path, *row.masks))
    if missing := next(listing.missing(files), None):
        row = next(row for row in manifest.rows if missing in map(file_of, (row.path, *row.masks)))
        what = "image" if file_of(row.path) == missing else f"mask of {row.path}"
        raise UserError(f"{missing}: no such file, but {source} gives it as the {what}. Add it, or correct its path.")
    left_out = listing.unnamed_files(manifest.root) if masks and not manifest.left_out else ()
    return replace(manifest, left_out=left_out) if left_out else manifest


def refuse_missing_masks(manifest: Manifest) -> None:
    """Checks that every abnormal test image has a mask.

    Raises:
        UserError: If one has none.
    """
    abnormal = [row for row in manifest.select("test") if row.label]
    missing = [row.path for row in abnormal if not row.masks]
    if missing:
        raise UserError(
            f"{missing[0]}: no mask for this image; {len(missing)} of {len(abnormal)} abnormal images have none."
            " Add them, or leave these images out of pixel metrics with --data.require_masks false."
        )
