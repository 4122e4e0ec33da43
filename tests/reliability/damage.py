"""What makes and damages files in a copy of the trained workspace, for the tables; each gives a function to call."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

Prepare = Callable[[], object]
CCD, PADIM, IGD = (Path(f"runs/{name}_synthetic/version_0") for name in ("ccd", "padim", "igd"))
SET = Path("data/synthetic_colonoscopy")
IMAGE = SET / "train/good/0001.png"
TESTED = SET / "test/polyp_subtle/0000.png"
MASK = SET / "ground_truth/polyp_subtle/0000.png"


def both(*steps: Prepare) -> Prepare:
    """All of several, one after the other."""
    return lambda: [step() for step in steps]


def write(path: str | Path, content: str | bytes) -> Prepare:
    """A file with a content, in a folder that is made."""

    def prepare() -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content.encode() if isinstance(content, str) else content)

    return prepare


def cut(path: str | Path, share: float = 0.5) -> Prepare:
    """The first part of a file alone."""
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[: int(Path(path).stat().st_size * share)])


def replace(path: str | Path, old: str, new: str) -> Prepare:
    """Another text in a file."""

    def prepare() -> None:
        text = Path(path).read_text()
        assert old in text
        Path(path).write_text(text.replace(old, new))

    return prepare


def remove(path: str | Path) -> Prepare:
    """A file or folder less."""
    return lambda: shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()


def folder(path: str | Path) -> Prepare:
    """A folder, perhaps in the place of a file."""

    def prepare() -> None:
        if Path(path).is_file():
            Path(path).unlink()
        Path(path).mkdir(parents=True)

    return prepare


def edit_json(path: Path, change: Callable[[Any], object]) -> Prepare:
    """Another content of a JSON file; `change` works in place."""

    def prepare() -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return prepare


def edit_checkpoint(
    change: Callable[[dict[str, Any]], object], file: Path = PADIM / "checkpoints/best.ckpt", to: str = ""
) -> Prepare:
    """A checkpoint with something else in it, at its place or, if `to` names one, in another file."""

    def prepare() -> None:
        content = torch.load(file, weights_only=True)
        change(content)
        torch.save(content, to or file)

    return prepare


def image(
    path: str | Path, size: tuple[int, int] = (64, 64), colour: int | tuple[int, ...] = 90, mode: str = "RGB"
) -> Prepare:
    """An image of one colour."""

    def prepare() -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, (colour,) * 3 if mode == "RGB" and isinstance(colour, int) else colour).save(path)

    return prepare


def array(path: str | Path, values: object) -> Prepare:
    """A file of NumPy's."""
    return lambda: np.save(path, np.asarray(values), allow_pickle=True)
