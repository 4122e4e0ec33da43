"""The cells of the ablation, and where each leaves its results."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(".bench/ablation")
SIZE, STEPS, SEEDS, BATCH = 64, 120, 3, 16  # pixels, steps, seeds, images of a batch: two hours on two cores
VIEW, PATCH = 2, 4  # a view's side is the image's divided by this, and a patch's

# Each set, and how the names of its configs end.
SETS = {"colonoscopy": "synthetic", "fundus": "synthetic_fundus", "head_ct": "folder"}
FAMILIES = ("Permutation", "Rotation", "Cutout", "Noise")  # of transforms.strong
LOSSES = ("contrastive", "augmentation", "position")
ALL, UNTRAINED = "all", "untrained"
TERMS = {  # name to the losses that have weight 1; the others have weight 0
    "contrastive": LOSSES[:1],
    "contrastive+augmentation": LOSSES[:2],
    "contrastive+position": LOSSES[::2],
    ALL: LOSSES,
}


@dataclass(frozen=True)
class Cell:
    """An encoder with PaDiM on it.

    Attributes:
        data: One of SETS.
        seed: Of the hold-out, the order, the views, the initial weights and PaDiM's channels.
        terms: One of TERMS, or "untrained", the baseline, which has no family.
        family: One of FAMILIES.
    """

    data: str
    seed: int
    terms: str = UNTRAINED
    family: str = ""

    @property
    def name(self) -> str:
        """Such as colonoscopy-Rotation-all-0."""
        return "-".join(filter(None, (self.data, self.family, self.terms, str(self.seed))))


@dataclass(frozen=True)
class Settings:
    """What all cells share; other sizes or steps have another folder.

    Attributes:
        folder: Of the results and of the synthetic images.
        size: Side of the images in pixels.
        steps: Optimiser steps of a pretraining.
        seeds: Their number.
        head_ct: Folder of the head CT slices.
    """

    folder: Path = FOLDER
    size: int = SIZE
    steps: int = STEPS
    seeds: int = SEEDS
    head_ct: Path | None = None

    def place(self, cell: Cell) -> Path:
        """The folder of a cell; `metrics.json` stands in it when the cell is finished."""
        return self.folder / f"{self.size}px_{self.steps}steps" / cell.name

    def finished(self, cell: Cell) -> bool:
        """Whether a cell has its results."""
        return (self.place(cell) / "metrics.json").is_file()

    @property
    def view(self) -> int:
        """Side of a view in pixels."""
        return self.size // VIEW

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.size // PATCH

    def root(self, data: str) -> Path:
        """The folder of a set's images."""
        own = self.head_ct if data == "head_ct" else None
        return own or self.folder / f"{data}_{self.size}px"


def grid(sets: Iterable[str], families: Iterable[str], terms: Iterable[str], seeds: int) -> list[Cell]:
    """The cells in the order to run them: a seed of everything before the next, baselines first."""
    sets, families, terms = tuple(sets), tuple(families), tuple(terms)
    cells = []
    for seed in range(seeds):
        cells += [Cell(data, seed) for data in sets]
        cells += [Cell(data, seed, *chosen) for data, *chosen in itertools.product(sets, terms, families)]
    return cells
