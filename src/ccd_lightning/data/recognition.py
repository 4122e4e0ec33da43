"""Recognition of a folder's layout."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ccd_lightning.commands import expand
from ccd_lightning.data import published
from ccd_lightning.data.layouts import is_folders, scan_folder
from ccd_lightning.data.listing import Listing, unused_files
from ccd_lightning.data.manifest import Manifest
from ccd_lightning.data.naming import is_junk
from ccd_lightning.data.published import LayoutOptions
from ccd_lightning.data.sources import AXIAL, file_of
from ccd_lightning.data.stacks import expand_stacks
from ccd_lightning.data.walking import entries
from ccd_lightning.errors import UserError

AUTO = "auto"
OUTER = 2  # number of folders above a root that are tried if it is not recognised


@dataclass(frozen=True)
class Layout:
    """A folder layout of data sets.

    Attributes:
        name: Name by which it can be selected.
        shape: Description for messages.
        matches: Function that returns whether a folder has this layout.
        read: Function that reads a folder with the given options and returns its manifest.
    """

    name: str
    shape: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, LayoutOptions], Manifest]


LAYOUTS = (
    Layout(
        "folders",
        "train/good, test/good, test/KIND and, where there are masks, ground_truth/KIND",
        is_folders,
        lambda root, options: scan_folder(root, options.masks, options.groups),
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
    Layout(
        "isic2018",
        "ISIC2018_Task3_{Training,Test}_Input and ISIC2018_Task3_{Training,Test}_GroundTruth",
        published.is_isic2018,
        published.isic2018,
    ),
    Layout("two_folders", "normal and abnormal", published.is_two_folders, published.two_folders),
)


def read_layout(
    root: Path, layout: str = AUTO, masks: bool = True, seed: int = 0, groups: bool = True, axis: int = AXIAL
) -> tuple[Manifest, str]:
    """Reads a data set in any known layout.

    Args:
        root: Folder of the data set, or a manifest.
        layout: Name of the layout, a manifest (a .csv whose paths are relative to the root), or "auto".
        masks: Whether to look for masks.
        seed: Seed of the split, if the layout has none.
        groups: Whether images of a patient or recording, by their names or the manifest's column, stay together.
        axis: Axis along which volumes are cut into slices.

    Returns:
        The manifest, in which each page of a file is an image, including what the folder contains beyond it; and the
        name of the layout.

    Raises:
        UserError: If the folder or layout does not exist, or the folder does not match its layout.
    """
    folder = root.parent if root.suffix.lower() == ".csv" else root
    table = next((path for path in (expand(layout), root) if path.suffix.lower() == ".csv"), None)
    if table:
        folders = list(_unpacked(root)) if root.is_dir() else [folder]
        manifest = _read_table(table, folders, masks, groups, whole=root.is_dir())
        return expand_stacks(manifest, groups, axis), f"manifest {table}"
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. Give the data set's folder with --data.root DIR.")
    known = {one.name: one for one in LAYOUTS}
    if layout != AUTO and layout not in known:
        raise UserError(f"data.layout is {layout!r}, but must be auto, a manifest (.csv) or one of {', '.join(known)}.")
    candidates = LAYOUTS if layout == AUTO else (known[layout],)
    for folder in _unpacked(root):
        for one in candidates:
            if one.matches(folder):
                # The test split alone looks like a data set of two folders, whose normal images would be divided.
                if layout == AUTO and one.name == "two_folders" and (outer := _outer_root(root.absolute(), 1)):
                    raise UserError(f"{_part_of(root, outer)}, or read this part alone: --data.layout {one.name}")
                manifest = one.read(folder, LayoutOptions(masks, seed, groups))
                return expand_stacks(replace(manifest, left_out=unused_files(manifest, masks)), groups, axis), one.name
    if layout != AUTO:
        raise UserError(f"{root}: not of the layout {layout}, which is {known[layout].shape}.")
    raise UserError(_not_recognised(root))


def possible_roots(root: Path) -> Iterator[Path]:
    """Yields the folders to which paths of a split may refer if a config names this root; none if it does not exist."""
    if root.suffix.lower() == ".csv":
        yield root.parent
    elif root.is_dir():
        yield from _unpacked(root)


def _unpacked(root: Path) -> Iterator[Path]:
    """Yields the folder, and those below it while there is only a single folder, as in many archives."""
    while True:
        yield root
        found = [path for path in entries(root) if not is_junk(path.name)]
        if len(found) != 1 or not found[0].is_dir():
            return
        root = found[0]


def _read_table(table: Path, folders: Sequence[Path], masks: bool, groups: bool, whole: bool) -> Manifest:
    """Reads a manifest whose paths are relative to the first of `folders` that contains its first image.

    Args:
        table: The manifest.
        folders: Possible folders of its images.
        masks: Whether to keep the masks.
        groups: Whether to keep the groups.
        whole: Whether such a folder contains nothing but the data set.
    """
    read = (Manifest.read(table, folder) for folder in folders)
    found = next((one for one in read if one.rows and file_of(one.rows[0].path).is_file()), None)
    manifest = Manifest.read(table, folders[0]) if found is None else found
    folder, listing = manifest.root, Listing()
    named = (file_of(path) for row in manifest.rows for path in (row.path, *(row.masks if masks else ())))
    if missing := next(listing.missing(named), None):
        base = "the table's folder" if folder.resolve() == table.parent.resolve() else "the data's root"
        raise UserError(
            f"{missing}: no such file, but {table} names it. Give paths relative to {base} ({folder.resolve()}), or"
            " absolute ones."
        )
    if not masks:  # they are named, even if they need not exist
        list(listing.missing(file_of(path) for row in manifest.rows for path in row.masks))
    left_out = listing.unnamed_files(folder, whole)
    if masks and groups:
        return replace(manifest, left_out=left_out) if left_out else manifest
    rows = [
        replace(row, masks=row.masks if masks else (), group=row.group if groups else None) for row in manifest.rows
    ]
    return Manifest(folder, rows, left_out=left_out)


def _not_recognised(root: Path) -> str:
    if outer := _outer_root(root.absolute()):
        return _part_of(root, outer)
    names = [path.name + "/" * path.is_dir() for path in entries(root)]
    found = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"
    shapes = "\n".join(f"  {one.name:12} {one.shape}" for one in LAYOUTS)
    return f"{root}: no known layout; there is {found}. Known are\n{shapes}\n  a manifest   --data.root TABLE.csv"


def _part_of(root: Path, outer: Path) -> str:
    shown = next((folder for folder in root.parents if folder.name and folder.absolute() == outer), outer)
    option = f"--data.root {shlex.quote(str(shown))}"
    return f"{root}: this is a part of the data set in {shown}. Give that folder: {option}"


def _outer_root(root: Path, above: int = OUTER) -> Path | None:
    """Returns the folder above that has a layout which can be recognised without a search, if `root` is part of it."""
    try:
        for matches in (is_folders, published.is_two_folders):  # the test split alone matches the second one, too
            if outer := next(filter(matches, root.parents[:above]), None):
                return outer
    except OSError:  # not everyone may list the folders above
        pass
    return None
