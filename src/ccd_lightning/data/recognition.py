"""Which layout a folder has."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ccd_lightning.commands import expand
from ccd_lightning.data import published
from ccd_lightning.data.layouts import scan_folder
from ccd_lightning.data.manifest import Manifest
from ccd_lightning.errors import UserError

AUTO = "auto"


@dataclass(frozen=True)
class Layout:
    """A way in which data sets lie on disk.

    Attributes:
        name: By which it can be asked for.
        shape: What it looks like, for messages.
        matches: Whether a folder has it.
        read: From the folder, whether masks are wanted, and the seed of the split, to the manifest.
    """

    name: str
    shape: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, bool, int], Manifest]


LAYOUTS = (
    Layout(
        "folders",
        "train/good, test/good, test/KIND and, where there are masks, ground_truth/KIND",
        lambda root: (root / "train" / "good").is_dir() or (root / "test").is_dir(),
        lambda root, masks, seed: scan_folder(root, masks),
    ),
    Layout(
        "authors",
        "train_set, test_set/normal_test, test_set/abnormal_test",
        lambda root: (root / "train_set").is_dir() and (root / "test_set").is_dir(),
        published.authors,
    ),
    Layout(
        "hyper_kvasir",
        "labeled-images/.../{cecum,ileum,bbps-2-3} and segmented-images/{images,masks}",
        published.is_hyper_kvasir,
        published.hyper_kvasir,
    ),
    Layout(
        "lag",
        "non_glaucoma/image, suspicious_glaucoma/{image,attention_map}",
        published.is_lag,
        published.lag,
    ),
    Layout(
        "medianomaly",
        "images and data.json",
        lambda root: (root / "data.json").is_file() and (root / "images").is_dir(),
        published.medianomaly,
    ),
    Layout("two_folders", "normal and abnormal", published.is_two_folders, published.two_folders),
)


def read_layout(root: Path, layout: str = AUTO, masks: bool = True, seed: int = 0) -> tuple[Manifest, str]:
    """Reads a data set in whatever layout it has.

    Args:
        root: Its folder, or a manifest written before.
        layout: The layout's name, a manifest (a .csv whose paths refer to the root), or "auto".
        masks: Whether to look for masks.
        seed: Of the split, where the layout has none.

    Returns:
        The manifest, and what the layout is called.

    Raises:
        UserError: If there is no such folder or layout, or the folder is not as its layout wants it.
    """
    place = root.parent if root.suffix.lower() == ".csv" else root
    table = next((path for path in (expand(layout), root) if path.suffix.lower() == ".csv"), None)
    if table:
        return _read_table(table, place, masks), f"manifest {table}"
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. Give the data set's folder with --data.root DIR.")
    known = {one.name: one for one in LAYOUTS}
    if layout != AUTO and layout not in known:
        raise UserError(f"data.layout is {layout!r}, but must be auto, a manifest (.csv) or one of {', '.join(known)}.")
    candidates = LAYOUTS if layout == AUTO else (known[layout],)
    for folder in _unpacked(root):
        for one in candidates:
            if one.matches(folder):
                return one.read(folder, masks, seed), one.name
    if layout != AUTO:
        raise UserError(f"{root}: not of the layout {layout}, which is {known[layout].shape}.")
    raise UserError(_not_recognised(root))


def possible_roots(root: Path) -> Iterator[Path]:
    """The folders that the paths of a split may refer to, if a config names this root; none where it is not there."""
    if root.suffix.lower() == ".csv":
        yield root.parent
    elif root.is_dir():
        yield from _unpacked(root)


def _unpacked(root: Path) -> Iterator[Path]:
    """The folder, and those below it as long as there is nothing but one folder: archives often hold one."""
    while True:
        yield root
        entries = [path for path in root.iterdir() if not published.is_junk(path.name)]
        if len(entries) != 1 or not entries[0].is_dir():
            return
        root = entries[0]


def _read_table(table: Path, place: Path, masks: bool) -> Manifest:
    manifest = Manifest.read(table, place)
    named = (path for row in manifest.rows for path in (row.path, row.mask if masks else None) if path)
    if missing := next(_absent(named), None):
        raise UserError(f"{missing}: no such file, but {table} names it. Its paths are relative to {place}.")
    return manifest if masks else Manifest(place, [replace(row, mask=None) for row in manifest.rows])


def _absent(paths: Iterable[Path]) -> Iterator[Path]:
    """Those that are not there; folders are listed once, which takes less time than asking for each file."""
    listed: dict[str, frozenset[str]] = {}
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in listed:
            listed[folder] = frozenset(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else frozenset()
        if name not in listed[folder]:
            yield path


def _not_recognised(root: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    found = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"
    shapes = "\n".join(f"  {one.name:12} {one.shape}" for one in LAYOUTS)
    return f"{root}: no known layout; there is {found}. Known are\n{shapes}\n  a manifest   --data.root TABLE.csv"


def sizes(manifest: Manifest) -> tuple[int, int, int]:
    """How many images there are to train on, and normal and abnormal ones to test on."""
    count = Counter[tuple[str, int]]((row.split, row.label) for row in manifest.rows)
    return count["train", 0], count["test", 0], count["test", 1]


def describe(manifest: Manifest) -> str:
    """How many images of what, in words."""
    train, normal, abnormal = sizes(manifest)
    masks = sum(row.mask is not None for row in manifest.rows)
    return f"{train} training images, {normal} normal test images, {abnormal} abnormal ones, {masks} masks"
