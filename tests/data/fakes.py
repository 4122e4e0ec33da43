"""Small data sets with the real folder and file names of published ones."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, seed: int = 0, mode: str = "RGB") -> Path:
    """Writes 32 px of noise that depends on the seed and on the names of the file and its two folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng((seed, zlib.crc32("/".join(path.parts[-3:]).encode())))
    shape = (32, 32, 3) if mode == "RGB" else (32, 32)
    Image.fromarray(rng.integers(40, 200, shape, np.uint8)).save(path)
    return path


def spot(path: Path) -> None:
    """Writes a mask with a bright square, grey around it as an attention map is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.full((32, 32), 30, np.uint8)
    mask[8:20, 10:24] = 240
    Image.fromarray(mask).save(path)


def hyper_kvasir(root: Path) -> None:
    """The official archives, unpacked side by side: 21 normal images, 6 polyps."""
    lower = root / "labeled-images/lower-gi-tract"
    for folder in ("anatomical-landmarks/cecum", "anatomical-landmarks/ileum", "quality-of-mucosal-views/bbps-2-3"):
        for index in range(7):
            picture(lower / folder / f"{folder[-3:]}{index:02d}-7f2a-4d5e.jpg")
    for other in ("pathological-findings/polyps", "quality-of-mucosal-views/bbps-0-1"):
        picture(lower / other / "never-used.jpg")
    for index in range(6):
        picture(root / f"segmented-images/images/cju{index}.jpg")
        spot(root / f"segmented-images/masks/cju{index}.jpg")


def authors(root: Path) -> None:
    """The archive of the paper's authors: 16 images to train on, 5 normal and 6 abnormal ones to test on."""
    for folder, count in (("train_set", 16), ("test_set/normal_test", 5), ("test_set/abnormal_test", 6)):
        for index in range(count):
            picture(root / folder / f"{index}.png")


def lag(root: Path) -> None:
    """The LAG database: 20 healthy eyes, 6 with glaucoma."""
    for name, count in (("non_glaucoma", 20), ("suspicious_glaucoma", 6)):
        for index in range(count):
            picture(root / name / "image" / f"{index:04d}.jpg")
            spot(root / name / "attention_map" / f"{index:04d}.jpg")
            (root / name / "label").mkdir(exist_ok=True)
            (root / name / "label" / f"{index:04d}.txt").write_text(str(int(name[0] == "s")))


def medianomaly(root: Path) -> None:
    """MedIAnomaly's packing of the same."""
    names = {label: [f"{kind}{index}.png" for index in range(6)] for label, kind in (("0", "n"), ("1", "a"))}
    train = [f"t{index}.png" for index in range(14)]
    for name in (*train, *names["0"], *names["1"]):
        picture(root / "images" / name)
    (root / "data.json").write_text(json.dumps({"train": {"0": train}, "test": names}))


def isic2018(root: Path) -> None:
    """Task 3 of ISIC 2018: 14 naevi among 18 images to train on; 6 naevi, 4 melanomas and 2 others to test on."""
    kinds = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
    for split, of_each in (("Training", {"NV": 14, "MEL": 3, "DF": 1}), ("Test", {"NV": 6, "MEL": 4, "VASC": 2})):
        name, lines = f"ISIC2018_Task3_{split}", [",".join(("image", *kinds))]
        for index, kind in enumerate(kind for kind, count in of_each.items() for _ in range(count)):
            stem = f"ISIC_{index + (0 if split == 'Training' else 34524):07d}"
            picture(root / f"{name}_Input" / f"{stem}.jpg")
            lines.append(",".join((stem, *(str(float(kind == other)) for other in kinds))))
        (root / f"{name}_GroundTruth").mkdir()
        (root / f"{name}_GroundTruth" / f"{name}_GroundTruth.csv").write_text("\n".join(lines) + "\n")


def two_folders(root: Path) -> None:
    """Two folders of three frames a video."""
    for folder, count in (("Normal", 24), ("Abnormal", 6)):
        for index in range(count):
            picture(root / folder / f"video{index // 3}_frame{index % 3}.png")


# Of each layout what makes it, and the numbers of images to train on, normal, abnormal and masks.
FAKES: dict[str, tuple[Callable[[Path], None], tuple[int, int, int, int]]] = {
    "hyper_kvasir": (hyper_kvasir, (16, 5, 6, 6)),
    "authors": (authors, (16, 5, 6, 0)),
    "lag": (lag, (15, 5, 6, 6)),
    "medianomaly": (medianomaly, (14, 6, 6, 0)),
    "isic2018": (isic2018, (14, 6, 6, 0)),
    "two_folders": (two_folders, (18, 6, 6, 0)),
}
