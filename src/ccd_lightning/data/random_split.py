"""Division of normal images into training and test images, for layouts without a split."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from ccd_lightning.data.manifest import Row
from ccd_lightning.data.naming import group_of
from ccd_lightning.data.sources import name_below
from ccd_lightning.data.stacks import header_groups
from ccd_lightning.errors import UserError


def draw_split(
    base: Path,
    paths: Iterable[Path],
    share: float,
    seed: int,
    tested: Iterable[str | None] = (),
    grouped: bool = True,
) -> list[Row]:
    """Divides normal images into training and test images. Images of a patient or video stay together.

    Groups are ranked by a digest of their name and the seed, so that adding or removing a file changes little. If a
    file's header names the patient, its pseudonym depends on the machine; then the path of the group's first image is
    used as the name.

    Args:
        base: Folder whose subfolders may be named after patients or videos.
        paths: Paths of the normal images.
        share: Fraction of the images to test on, in (0, 1).
        seed: Seed of the split.
        tested: Groups that must be test images, because they also have abnormal images.
        grouped: Whether images are grouped by the patient or recording in their names.

    Raises:
        UserError: If all images belong to one patient or video.
    """
    paths = list(paths)
    headers = header_groups(paths) if grouped else {}
    own = {path: headers.get(path) or (group_of(path, base) if grouped else None) for path in paths}
    groups: dict[str, list[Path]] = {}
    for path in own:
        groups.setdefault(own[path] or f"{path.parent.name}/{path.name}", []).append(path)
    names = {name: name for name in groups}
    names |= {group: min(name_below(base, path) for path in groups[group]) for group in set(headers.values())}
    ranked = sorted(groups, key=lambda group: hashlib.sha256(os.fsencode(f"{seed} {names[group]}")).digest())
    chosen = {name for name in tested if name in groups}
    count, wanted = sum(len(groups[name]) for name in chosen), round(share * sum(map(len, groups.values())))
    for name in ranked:
        if name not in chosen and count + len(groups[name]) <= wanted:
            chosen.add(name)
            count += len(groups[name])
    if len(chosen) == len(groups) or (wanted and not chosen):
        raise UserError(
            f"{base}: its normal images are of {len(groups)} patients or videos, by their names ({ranked[0]}, ...),"
            " which cannot be divided into training and test. Give the split as a manifest (--data.layout TABLE.csv);"
            " --data.groups false treats every image separately."
        )
    return [
        Row(path, "test" if name in chosen else "train", group=own[path])
        for name in sorted(groups, key=lambda group: names[group])
        for path in sorted(groups[name])
    ]
