"""Procedural data sets as folders, in the common layout."""

from __future__ import annotations

import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.progress import track
from scipy.stats import rankdata

from ccd_lightning.data.synthetic import colonoscopy, fundus
from ccd_lightning.data.synthetic.canvas import Scene
from ccd_lightning.errors import UserError

VERSION = 1  # of what is painted: a folder made by another one is not taken for the same data set
RECORD = "synthesis.json"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Set:
    """A procedural data set: its kinds of abnormality, and what paints one image."""

    kinds: tuple[str, ...]
    paint: Callable[[str, np.random.Generator, int], Scene]


SETS = {
    "colonoscopy": Set(colonoscopy.KINDS, colonoscopy.render_colonoscopy),
    "fundus": Set(fundus.KINDS, fundus.render_fundus),
}


def synthesize(
    root: Path,
    name: str,
    *,
    size: int = 128,
    seed: int = 0,
    train: int = 320,
    test_good: int = 200,
    test_abnormal: int = 210,
) -> None:
    """Makes a data set in the common folder layout, or leaves alone what is already there.

    Args:
        root: The folder to make.
        name: One of SETS.
        size: Side of the images, in pixels.
        seed: Decides the images; an image does not depend on how many others there are.
        train: Normal training images.
        test_good: Normal test images.
        test_abnormal: Abnormal test images, spread evenly over the kinds.

    Raises:
        UserError: If the folder holds something else.
    """
    counts = {"train": train, "test_good": test_good, "test_abnormal": test_abnormal}
    record = {"name": name, "size": size, "seed": seed, "version": VERSION, **counts}
    if root.exists() and any(root.iterdir()):
        _check_same(root, record)
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}-"))
    try:
        jobs = list(_jobs(name, train, test_good, test_abnormal))
        for folder, kind, index in track(jobs, f"Painting {name}", transient=True):
            split = folder.split("/")[0]
            words = (seed, *(zlib.crc32(word.encode()) for word in (name, split, kind)), index)
            _write(partial, folder, index, SETS[name].paint(kind, np.random.default_rng(words), size))
        (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        partial.chmod(0o755)
        partial.rename(root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _check_same(root: Path, record: dict[str, Any]) -> None:
    file = root / RECORD
    if not file.is_file():
        raise UserError(f"{root}: holds other files than an embedded data set. Remove them, or give another folder.")
    found = json.loads(file.read_text())
    different = [key for key, value in record.items() if found.get(key) != value]
    if different:
        key = different[0]
        raise UserError(
            f"{root}: made with {key} {found.get(key)}, but {key} {record[key]} is asked for."
            " Remove the folder to make it anew, or give another one."
        )


def _jobs(name: str, train: int, test_good: int, test_abnormal: int) -> Iterator[tuple[str, str, int]]:
    kinds = SETS[name].kinds
    yield from (("train/good", "good", index) for index in range(train))
    yield from (("test/good", "good", index) for index in range(test_good))
    for place, kind in enumerate(kinds):
        yield from ((f"test/{kind}", kind, index) for index in range(len(range(place, test_abnormal, len(kinds)))))


def _write(root: Path, folder: str, index: int, scene: Scene) -> None:
    files = {folder: scene.image}
    if scene.mask.any():
        files[folder.replace("test/", "ground_truth/")] = scene.mask.astype(np.uint8) * 255
    for name, pixels in files.items():
        file = root / name / f"{index:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)


def baselines(root: Path) -> dict[str, float]:
    """Image AUROC of two detectors that learn nothing: a data set on which they do well is a toy.

    Args:
        root: A folder in the common layout, all images of one size.

    Returns:
        "nearest_pixel": distance to the nearest training image, pixel by pixel. "mean_colour": Mahalanobis distance
        of the mean colour from the training images'.
    """
    train = _read(root / "train" / "good")
    folders = sorted(path for path in (root / "test").iterdir() if path.is_dir())
    tests = [_read(folder) for folder in folders]
    test = np.concatenate(tests)
    labels = np.repeat([folder.name != "good" for folder in folders], [len(images) for images in tests])
    flat, reference = test.reshape(len(test), -1), train.reshape(len(train), -1)
    squared = (flat**2).sum(1)[:, None] - 2 * flat @ reference.T + (reference**2).sum(1)
    colour, normal = test.mean((1, 2)), train.mean((1, 2))
    centred = colour - normal.mean(0)
    mahalanobis = np.einsum("nc,cd,nd->n", centred, np.linalg.inv(np.cov(normal.T)), centred)
    return {"nearest_pixel": _auroc(squared.min(1), labels), "mean_colour": _auroc(mahalanobis, labels)}


def _read(folder: Path) -> npt.NDArray[np.float32]:
    images = [np.asarray(Image.open(path).convert("RGB"), np.float32) / 255 for path in sorted(folder.glob("*.png"))]
    return np.stack(images)


def _auroc(scores: Floats, labels: npt.NDArray[np.bool_]) -> float:
    ranks, positive = rankdata(scores), int(labels.sum())
    return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * (len(labels) - positive)))
