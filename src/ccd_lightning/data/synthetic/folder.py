"""Procedural data sets as folders, in the common layout."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ccd_lightning.errors import UserError
from ccd_lightning.ranges import at_least, seed_in_range
from ccd_lightning.reading import read_text
from ccd_lightning.writing import scratch

if TYPE_CHECKING:
    from ccd_lightning.data.synthetic.noise import Scene

VERSION = 5  # version of the painting: a folder made by another version is not reused
RECORD = "synthesis.json"
GOOD = "good"
SMALLEST = 32  # pixels per side: below this, lesions are smaller than a pixel
GRADES = ("subtle", "moderate", "obvious")


@dataclass(frozen=True)
class Set:
    """A procedural data set.

    Attributes:
        kinds: Kinds of abnormality, each a family and a grade, such as "polyp_subtle".
        module: Name of the module with the function `paint(kind, rng, size)`. Imported when first needed.
    """

    kinds: tuple[str, ...]
    module: str


SETS = {
    "colonoscopy": Set(tuple(f"polyp_{grade}" for grade in GRADES), "ccd_lightning.data.synthetic.colonoscopy"),
    "fundus": Set(
        tuple(f"{family}_{grade}" for family in ("lesion", "cup") for grade in GRADES),
        "ccd_lightning.data.synthetic.fundus",
    ),
}


def render(name: str, anomaly_type: str, rng: np.random.Generator, size: int) -> Scene:
    """Paints one image.

    The normal parts are drawn from the generator first. Equal generators therefore give an abnormal image and its
    normal twin, which differ only inside the mask (and, because of the lens blur, right next to it).

    Args:
        name: Name of the data set, one of SETS.
        anomaly_type: "good" or one of the set's kinds.
        rng: Generator of all random numbers.
        size: Side of the image in pixels. Structures scale with it.

    Returns:
        The image (size, size, 3) uint8 and the mask (size, size) bool, which is empty for "good".

    Raises:
        UserError: If there is no such set, or no such kind in it.
    """
    chosen = _find(name)
    if anomaly_type not in (GOOD, *chosen.kinds):
        raise UserError(f"{anomaly_type}: no such kind in the set {name}. It has {', '.join((GOOD, *chosen.kinds))}.")
    scene: Scene = import_module(chosen.module).paint(anomaly_type, rng, size)
    return scene


def synthesize(
    root: Path,
    name: str,
    *,
    size: int = 128,
    seed: int = 0,
    train: int = 320,
    test_good: int = 200,
    test_abnormal: int = 210,
    progress: bool = True,
) -> None:
    """Generates a data set in the common folder layout, unless it exists already.

    Args:
        root: Folder to create. It appears only when it is complete.
        name: Name of the data set, one of SETS.
        size: Side of the images in pixels.
        seed: Seed of the images. An image does not depend on the number of other images.
        train: Number of normal training images.
        test_good: Number of normal test images.
        test_abnormal: Number of abnormal test images, distributed evenly over the kinds.
        progress: Whether to show a progress bar.

    Raises:
        UserError: If there is no such set, a number is out of range, or the folder contains something else.
    """
    _find(name)
    counts = {"train": train, "test_good": test_good, "test_abnormal": test_abnormal}
    at_least("--size", size, SMALLEST)
    seed_in_range("--seed", seed)
    for option, count in counts.items():
        at_least(f"--{option}", count, 0)
    record = {"name": name, "size": size, "seed": seed, "version": VERSION, **counts}
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        _check_same(root, record)
        return
    _build(root, record, list(_jobs(name, train, test_good, test_abnormal)), progress)


def image_generator(seed: int, name: str, split: str, anomaly_type: str, index: int) -> np.random.Generator:
    """Returns the random generator of one image, which depends only on the seed and the image's own name."""
    words = (seed, *(zlib.crc32(word.encode()) for word in (name, split, anomaly_type)), index)
    return np.random.default_rng(np.random.SeedSequence(words))


def _find(name: str) -> Set:
    if name not in SETS:
        raise UserError(f"{name}: no such synthetic data set. There are {', '.join(SETS)}.")
    return SETS[name]


def _build(root: Path, record: dict[str, Any], jobs: list[tuple[str, str, int]], progress: bool) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    with scratch(root) as partial:
        partial.mkdir()
        _write_all(partial, record["name"], record["size"], record["seed"], jobs, progress)
        (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        _move(partial, root, record)


def _move(partial: Path, root: Path, record: dict[str, Any]) -> None:
    try:
        partial.rename(root)
    except OSError:
        if not root.is_dir():
            raise
        _check_same(root, record)  # another process has created it in the meantime


def _check_same(root: Path, record: dict[str, Any]) -> None:
    try:
        found = json.loads(read_text(root / RECORD))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(
            f"{root}: contains files that are not of a synthetic data set. Remove them, or give another folder."
        )
    different = [key for key, value in record.items() if found.get(key) != value]
    if different:
        key = different[0]
        raise UserError(
            f"{root}: made with {key} {found.get(key)}, but {key} {record[key]} is asked for."
            " Remove the folder to make it anew, or give another one."
        )


def _jobs(name: str, train: int, test_good: int, test_abnormal: int) -> Iterator[tuple[str, str, int]]:
    kinds = SETS[name].kinds
    yield from (("train", GOOD, index) for index in range(train))
    yield from (("test", GOOD, index) for index in range(test_good))
    for first, anomaly_type in enumerate(kinds):
        yield from (("test", anomaly_type, index) for index in range(len(range(first, test_abnormal, len(kinds)))))


def _write_all(root: Path, name: str, size: int, seed: int, jobs: list[tuple[str, str, int]], progress: bool) -> None:
    from rich.progress import track

    # Not `disable`, with which older versions of rich print an empty line.
    for split, anomaly_type, index in track(jobs, f"Painting {name}", transient=True) if progress else jobs:
        scene = render(name, anomaly_type, image_generator(seed, name, split, anomaly_type, index), size)
        _write(root / split / anomaly_type / f"{index:04d}.png", Image.fromarray(scene.image))
        if anomaly_type != GOOD:
            _write(
                root / "ground_truth" / anomaly_type / f"{index:04d}.png",
                Image.fromarray(scene.mask.astype(np.uint8) * 255),
            )


def _write(file: Path, image: Image.Image) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
