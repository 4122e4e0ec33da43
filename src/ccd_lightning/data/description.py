"""Description of a manifest in one line."""

from __future__ import annotations

from collections import Counter

from ccd_lightning.data.manifest import Manifest
from ccd_lightning.data.naming import RECORDING
from ccd_lightning.data.sources import file_of
from ccd_lightning.data.stacks import describe_stacks
from ccd_lightning.data.walking import count


def sizes(manifest: Manifest) -> tuple[int, int, int]:
    """Returns the number of training, normal test and abnormal test images."""
    number = Counter[tuple[str, int]]((row.split, row.label) for row in manifest.rows)
    return number["train", 0], number["test", 0], number["test", 1]


def describe(manifest: Manifest, layout: str = "") -> str:
    """Describes the numbers of images and groups, and what is left out."""
    train, normal, abnormal = sizes(manifest)
    stacks = describe_stacks(row.path for row in manifest.rows)
    masks = sum(bool(row.masks) for row in manifest.rows)
    message = f"{count(train, 'training image')}, "
    if normal or abnormal:
        message += f"{count(normal, 'normal test image')}, {abnormal} abnormal ones, {count(masks, 'mask')}"
    else:
        message += "no test images"
    if 0 < masks < abnormal:
        have, them = ("has", "it") if abnormal - masks == 1 else ("have", "them")
        message += f" ({count(abnormal - masks, 'abnormal image')} {have} none: pixel metrics leave {them} out)"
    message += f" ({layout})" if layout else ""
    message += f"; {stacks}" if stacks else ""
    if groups := {row.group for row in manifest.rows if row.group}:
        files = {str(file_of(row.path)) for row in manifest.rows if row.group}
        what = "video" if all(map(RECORDING.match, groups)) else "patient"
        what = "file" if stacks and {str(manifest.root / group) for group in groups} <= files else what
        alone = sum(row.group is None for row in manifest.rows)
        message += f"; grouped by {what}: {count(len(groups), 'group')}"
        message += f" and {count(alone, 'image')} of none" if alone else ""
    return message + (f"; left out: {', '.join(manifest.left_out)}" if manifest.left_out else "")
