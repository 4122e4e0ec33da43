"""docs/ablation.md from what the cells of the ablation have left."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablation_grid import ALL, BATCH, FAMILIES, LOSSES, SETS, TERMS, Cell, Settings, grid
from ccd_lightning.reporting.metrics_json import check_same_data
from intervals import interval

MARK = "<!-- reading -->"
NOT_RUN = "not run"
TITLES = {"colonoscopy": "Synthetic colonoscopy", "fundus": "Synthetic fundus", "head_ct": "Head CT"}
METRICS = {"image/auroc": "Image AUROC", "pixel/auroc": "Pixel AUROC"}
PRETEXT = {loss: f"val/{loss}_accuracy" for loss in LOSSES[1:]}
LEFT_OUT = {"contrastive+position": "augmentation", "contrastive+augmentation": "position", "contrastive": "both"}
RAN = """
An encoder is pretrained with some terms of the loss and one family of strong augmentations; then PaDiM is fitted on it
and tested. There are {terms} choices of terms, {families} families, {seeds} seeds, and for each seed an untrained
encoder (random weights). Images have {size} px, views {view} px, patches {patch} px, and batches {batch} images. The
encoder is taken after {steps} optimiser steps on every data set. All other settings are those of the shipped configs.
{finished} of {cells} cells are finished."""
HOW_TO_READ = """
**How to read it.** The runs are short, so that there can be many of them: compare the figures with each other, not with
[benchmarks.md](benchmarks.md), whose runs have the shipped settings. Figures are means over seeds, brackets are 95%
intervals over seeds (Student's t; three seeds make them wide). Differences are paired: runs with the same seed share
the held-out images, initial weights and channels of PaDiM. *What the terms add* treats families and seeds as
independent, which they are not quite, so its intervals are somewhat too narrow. Some of this many intervals exclude 0
by chance: trust results on which several families and data sets agree."""
Values = Mapping[tuple[str, int], float]  # by family and seed


@dataclass(frozen=True)
class Results:
    """The numbers of the finished cells.

    Attributes:
        settings: What they share.
        numbers: Metrics and pretext accuracies of each finished cell.
    """

    settings: Settings
    numbers: Mapping[Cell, Mapping[str, float]]

    def values(self, data: str, terms: str, metric: str) -> Values:
        """A metric by family and seed, where it is known."""
        keys = [(family, seed) for family in FAMILIES for seed in range(self.settings.seeds)]
        cells = {key: self.numbers.get(Cell(data, key[1], terms, key[0]), {}) for key in keys}
        return {key: numbers[metric] for key, numbers in cells.items() if metric in numbers}

    def untrained(self, data: str, metric: str) -> Values:
        """The same of the untrained encoder, which knows of no family: the seed's value for each."""
        cells = {seed: self.numbers.get(Cell(data, seed), {}) for seed in range(self.settings.seeds)}
        known = {seed: numbers[metric] for seed, numbers in cells.items() if metric in numbers}
        return {(family, seed): value for family in FAMILIES for seed, value in known.items()}


def read(settings: Settings) -> Results:
    """Reads what is there.

    Raises:
        UserError: If the cells of a set were tested on different images.
    """
    numbers: dict[Cell, Mapping[str, float]] = {}
    for data in SETS:
        cells = [cell for cell in grid([data], FAMILIES, TERMS, settings.seeds) if settings.finished(cell)]
        contents = {cell: json.loads((settings.place(cell) / "metrics.json").read_text()) for cell in cells}
        if contents:
            check_same_data({cell.name: content["data"] for cell, content in contents.items()})
        for cell, content in contents.items():
            pretext = settings.place(cell) / "pretext.json"
            numbers[cell] = content["metrics"] | (json.loads(pretext.read_text()) if pretext.is_file() else {})
    return Results(settings, numbers)


def hand_written(output: Path) -> str:
    """What stands between the marks of the document.

    Raises:
        ValueError: If the marks are not the two that there should be.
    """
    parts = output.read_text().split(MARK) if output.is_file() else ["", "\nNot written yet.\n", ""]
    if len(parts) != 3:
        raise ValueError(f"{output}: {len(parts) - 1} lines {MARK} where two should enclose what was written by hand")
    return parts[1]


def write(settings: Settings, output: Path) -> None:
    """Writes the document, and keeps what was written by hand."""
    results = read(settings)
    there = {cell.data for cell in results.numbers}
    shown = [data for data in SETS if data != "head_ct" or settings.head_ct or data in there]
    blocks = [
        introduction(settings, shown, len(results.numbers)),
        "## What it says",
        f"{MARK}{hand_written(output)}{MARK}",
    ]
    for data in shown:
        blocks += [f"## {TITLES[data]}", *section(results, data)]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n\n".join(blocks) + "\n")


def introduction(settings: Settings, shown: list[str], finished: int) -> str:
    """What was run, and how to read it."""
    given = {name: getattr(settings, name) for name in ("size", "steps", "seeds")}
    options = [f" --{name} {value}" for name, value in given.items() if value != getattr(Settings, name)]
    options += [" --head_ct DIR"] if "head_ct" in shown else []
    cells = len(grid(shown, FAMILIES, TERMS, settings.seeds))
    counts = {"terms": len(TERMS), "families": len(FAMILIES), "finished": finished, "cells": cells}
    ran = RAN.format(view=settings.view, patch=settings.patch, batch=BATCH, **given, **counts)
    command = f"```\npython benchmarks/ablation.py{''.join(options)}\n```"
    return "\n\n".join(["# What each term and each family adds", command, filled(ran), filled(HOW_TO_READ)])


def filled(text: str) -> str:
    """Text in lines of equal length."""
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def section(results: Results, data: str) -> list[str]:
    """All tables of one set; pixel metrics where there are some, which takes masks."""
    known = {name for cell, numbers in results.numbers.items() if cell.data == data for name in numbers}
    metrics = [metric for metric in METRICS if metric == "image/auroc" or metric in known]
    blocks = [block for metric in metrics for block in detection(results, data, metric)]
    return [*blocks, added(results, data, metrics), pretext(results, data)]


def detection(results: Results, data: str, metric: str) -> list[str]:
    """A metric by terms and families, that of the untrained encoder, and the differences between the two."""
    untrained = results.untrained(data, metric)
    own: dict[str, list[str]] = {}
    gained: dict[str, list[str]] = {}
    for terms in TERMS:
        values = results.values(data, terms, metric)
        both = [(column(values, family), column(untrained, family)) for family in FAMILIES]
        own[title(terms)] = [described(mine.values(), results.settings.seeds) for mine, _ in both]
        gained[title(terms)] = [described(differences(*pair), results.settings.seeds) for pair in both]
    baseline = described(column(untrained, FAMILIES[0]).values(), results.settings.seeds)
    return [
        table(METRICS[metric], FAMILIES, own),
        f"Untrained encoder: {baseline}",
        table(f"{METRICS[metric]}, minus untrained", FAMILIES, gained),
    ]


def added(results: Results, data: str, metrics: list[str]) -> str:
    """What all three terms have more than those without one or both constraints, over families and seeds."""
    rows = {}
    expected = len(FAMILIES) * results.settings.seeds
    for terms, left_out in LEFT_OUT.items():
        pairs = [(results.values(data, ALL, metric), results.values(data, terms, metric)) for metric in metrics]
        rows[f"{left_out}: {title(ALL)} minus {title(terms)}"] = [described(differences(*p), expected) for p in pairs]
    return table("What the terms add", [METRICS[metric] for metric in metrics], rows)


def pretext(results: Results, data: str) -> str:
    """How well augmentations and positions of held-out images are told, each where it was learned."""
    rows = {}
    for terms, losses in TERMS.items():
        learned = [results.values(data, terms, PRETEXT[loss]) for loss in losses if loss in PRETEXT]
        if learned:
            rows[title(terms)] = [accuracies([column(values, family) for values in learned]) for family in FAMILIES]
    return table("Accuracy on held-out images: augmentation (chance 0.25), position (0.125)", FAMILIES, rows)


def accuracies(learned: list[Values]) -> str:
    """The mean over seeds of each."""
    return ", ".join(f"{np.mean([*values.values()]):.2f}" for values in learned) if all(learned) else NOT_RUN


def title(terms: str) -> str:
    """How a set of terms is called in a table."""
    return "all three" if TERMS[terms] == LOSSES else " + ".join(TERMS[terms])


def column(values: Values, family: str) -> Values:
    """The values of one family."""
    return {key: value for key, value in values.items() if key[0] == family}


def differences(first: Values, second: Values) -> list[float]:
    """First minus second, where both are known."""
    return [first[key] - second[key] for key in first if key in second]


def described(values: Collection[float], expected: int) -> str:
    """Mean and interval, and how many values there are, if not all."""
    if not values:
        return NOT_RUN
    return interval(np.array([*values])) + (f" ({len(values)} of {expected})" if len(values) < expected else "")


def table(name: str, columns: tuple[str, ...] | list[str], rows: Mapping[str, list[str]]) -> str:
    """A table in Markdown, its name in the upper left."""
    lines = [[name, *columns], ["---"] * (len(columns) + 1), *([row, *cells] for row, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
