"""How well detectors detect with CCD encoders and with untrained ones: several seeds, one table a detector.

    python benchmarks/detection.py colonoscopy fundus                  # PaDiM on the synthetic sets
    python benchmarks/detection.py folder --root DIR                   # on one's own
    python benchmarks/detection.py colonoscopy --detectors padim neighbours igd   # others, IGD also by each scale alone

Runs are kept in .bench/ and taken up where they were left. Intervals: over seeds, Student's t of the paired
differences; over test images, a stratified bootstrap of the difference averaged over seeds.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccd_lightning.cli import main
from ccd_lightning.metrics.threshold_metrics import partial_auc, score_counts
from intervals import Floats, interval

CONFIGS = {"colonoscopy": "synthetic", "fundus": "synthetic_fundus", "folder": "folder"}
PLACE = Path(".bench/runs")
ENCODERS = {  # of each detector, with the endings of their configs
    "padim": {"encoder": ""},
    "neighbours": {"encoder": ""},
    "igd": {"encoder": "", "local_encoder": "_local"},
}
SCALES = ("global_scale", "local_scale")


def fit_and_test(name: str, seed: int, detector: str, options: list[str]) -> dict[str, Path]:
    """Pretrains, fits and tests with and without pretraining; finds what is already there."""
    config, words = CONFIGS[name], ["--seed_everything", str(seed), *options]
    kind = "" if detector == "padim" else f"{detector}_"
    for ending in ENCODERS[detector].values():
        branch = pretrained(name, ending, seed)
        if not (branch / "latest" / "run.json").is_file():
            run(["fit", "--config", f"ccd_{config}{ending}", *words, *logger(branch.name)])
    weights = {
        "untrained": [f"--model.{encoder}.weights=null" for encoder in ENCODERS[detector]],
        "trained": pretrained_weights(name, seed, detector),
    }
    runs = {}
    for column, chosen in weights.items():
        runs[column] = PLACE / f"{name}_{kind}{column}_{seed}" / "latest"
        if (runs[column] / "metrics.json").is_file():
            continue
        if not (runs[column] / "run.json").is_file():
            place = logger(runs[column].parent.name)
            run(["fit", "--config", f"{detector}_{config}", *words, *chosen, *place])
        run(["test", "--ckpt_path", str(runs[column])])
    return runs | (each_scale(runs["trained"]) if detector == "igd" else {})


def pretrained(name: str, ending: str, seed: int) -> Path:
    """The runs of a branch of pretraining, whose config has this ending."""
    return PLACE / f"{name}_ccd{ending}_{seed}"


def pretrained_weights(name: str, seed: int, detector: str) -> list[str]:
    """The words that give a detector its pretrained encoders."""
    branches = ENCODERS[detector].items()
    return [f"--model.{encoder}.weights={pretrained(name, ending, seed)}" for encoder, ending in branches]


def each_scale(trained: Path) -> dict[str, Path]:
    """Tests IGD's run with each of the scales alone."""
    return {scale: alone(trained, scale, trained.parent.name) for scale in SCALES}


def alone(fitted: Path, scale: str, name: str, words: Sequence[str] = ()) -> Path:
    """Tests a copy of IGD's run with one of its scales; finds what is already there."""
    place = PLACE / f"{name}_{scale}" / "version_0"
    if not (place / "metrics.json").is_file():
        shutil.copytree(fitted, place, ignore=shutil.ignore_patterns("metrics.json"), dirs_exist_ok=True)
        (other,) = set(SCALES) - {scale}
        run(["test", "--ckpt_path", str(place), f"--model.{other}.weight=0", *words])
    return place


def logger(name: str) -> list[str]:
    """The words that put a run in its place."""
    return ["--trainer.logger.init_args.save_dir", str(PLACE), "--trainer.logger.init_args.name", name]


def run(words: list[str]) -> None:
    """Runs one command, or stops."""
    if main(words):
        raise SystemExit(f"ccd {' '.join(words)} failed")


def scores(folder: Path) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Image scores and labels of a tested run, sorted by path."""
    rows = sorted(csv.DictReader((folder / "predictions.csv").read_text().splitlines()), key=lambda row: row["path"])
    return np.array([float(row["score"]) for row in rows]), np.array([int(row["label"]) for row in rows])


def bootstrap(pairs: list[tuple[Path, Path]], rounds: int = 2000) -> str:
    """95% interval over test images of the difference in image AUROC, averaged over the pairs of runs."""
    rng = np.random.default_rng(0)
    columns = [(scores(first)[0], scores(second)[0]) for first, second in pairs]
    labels = scores(pairs[0][0])[1]
    classes = [np.flatnonzero(labels == value) for value in (0, 1)]
    drawn = []
    for _ in range(rounds):
        chosen = np.concatenate([rng.choice(members, len(members)) for members in classes])
        areas = [[partial_auc(*score_counts(labels[chosen], one[chosen])) for one in pair] for pair in columns]
        drawn.append(np.mean([first - second for first, second in areas]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"[{low:.3f}, {high:.3f}]"


def table(name: str, runs: list[dict[str, Path]]) -> None:
    """Prints the table of one data set and detector."""
    results = {kind: [metrics(pair[kind]) for pair in runs] for kind in runs[0]}
    print(f"\n{name}, {len(runs)} seeds, mean [95% interval over seeds]\n")
    print("| metric | untrained | CCD | difference |\n| --- | --- | --- | --- |")
    names = [key for key in results["trained"][0] if "auroc" in key or key == "pixel/aupro"]
    for key in names:
        untrained, trained = (np.array([run[key] for run in results[kind]]) for kind in ("untrained", "trained"))
        print(f"| {key} | {interval(untrained)} | {interval(trained)} | {interval(trained - untrained)} |")
    both = zip(results["untrained"], results["trained"], strict=True)
    seeds = ", ".join(f"{before['image/auroc']:.3f} -> {after['image/auroc']:.3f}" for before, after in both)
    print(f"\nImage AUROC by seed: {seeds}")
    print(f"Difference in image AUROC over test images: {bootstrap([(p['trained'], p['untrained']) for p in runs])}")


def metrics(folder: Path) -> dict[str, Any]:
    """What a test found."""
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())["metrics"]
    return found


def compare(name: str, first: list[Path], second: list[Path]) -> None:
    """Prints a line with the differences of two lists of runs, paired by seed."""
    pairs = [(metrics(a), metrics(b)) for a, b in zip(first, second, strict=True)]
    parts = [
        f"{key} {interval(np.array([a[key] for a, _ in pairs]) - np.array([b[key] for _, b in pairs]))}"
        for key in ("image/auroc", "pixel/auroc", "pixel/aupro")
        if key in pairs[0][0]
    ]
    print(f"{name}: {', '.join(parts)}")


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=CONFIGS)
    parser.add_argument("--detectors", nargs="+", choices=ENCODERS, default=["padim"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--root", help="the folder of the set `folder`")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse()
    os.environ.setdefault("COLUMNS", "100")
    for chosen in arguments.sets:
        own = ["--data.root", arguments.root] if chosen == "folder" else []
        every = {
            detector: [fit_and_test(chosen, seed, detector, own) for seed in range(arguments.seeds)]
            for detector in arguments.detectors
        }
        for detector, runs in every.items():
            table(f"{chosen}, {detector}", runs)
        if "igd" in every:
            whole = [runs["trained"] for runs in every["igd"]]
            print()
            for scale in SCALES:
                compare(f"IGD minus its {scale} alone", whole, [runs[scale] for runs in every["igd"]])
            if "padim" in every:
                compare("IGD minus PaDiM on the global encoder", whole, [runs["trained"] for runs in every["padim"]])
        if "neighbours" in every and "padim" in every:
            first, second = ([runs["trained"] for runs in every[name]] for name in ("neighbours", "padim"))
            compare("Neighbours minus PaDiM on the same encoder", first, second)
