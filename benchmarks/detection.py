"""How well PaDiM detects with a CCD encoder and with an untrained one: several seeds, one table.

    python benchmarks/detection.py colonoscopy fundus            # the embedded sets
    python benchmarks/detection.py folder --root DIR             # one's own

Runs are kept in .bench/ and taken up where they were left. Intervals: over seeds, Student's t of the paired
differences; over test images, a stratified bootstrap of the difference averaged over seeds.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccd_lightning.cli import main
from ccd_lightning.data.synthetic.baselines import auroc
from intervals import Floats, interval

CONFIGS = {"colonoscopy": "synthetic", "fundus": "synthetic_fundus", "folder": "folder"}
FOLDER = Path(".bench")


def fit_and_test(name: str, seed: int, options: list[str]) -> dict[str, Path]:
    """Pretrains, fits and tests with and without pretraining; finds what is already there."""
    config, words = CONFIGS[name], ["--seed_everything", str(seed), *options]
    place = FOLDER / "runs"
    logger = ["--trainer.logger.init_args.save_dir", str(place), "--trainer.logger.init_args.name"]
    runs = {kind: place / f"{name}_{kind}_{seed}" for kind in ("ccd", "trained", "untrained")}
    if not (runs["ccd"] / "latest" / "run.json").is_file():
        run(["fit", "--config", f"configs/ccd_{config}.yaml", *words, *logger, runs["ccd"].name])
    for kind, weights in (("trained", str(runs["ccd"])), ("untrained", "null")):
        if not (runs[kind] / "latest" / "metrics.json").is_file():
            chosen = ["--model.encoder.weights", weights, *logger, runs[kind].name]
            run(["fit", "--config", f"configs/padim_{config}.yaml", *words, *chosen])
            run(["test", "--ckpt_path", str(runs[kind] / "latest")])
    return {kind: runs[kind] / "latest" for kind in ("trained", "untrained")}


def run(words: list[str]) -> None:
    """Runs one command, or stops."""
    if main(words):
        raise SystemExit(f"ccd {' '.join(words)} failed")


def scores(folder: Path) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Image scores and labels of a tested run, sorted by path."""
    rows = sorted(csv.DictReader((folder / "predictions.csv").read_text().splitlines()), key=lambda row: row["path"])
    return np.array([float(row["score"]) for row in rows]), np.array([row["label"] == "1" for row in rows])


def bootstrap(pairs: list[tuple[Path, Path]], rounds: int = 2000) -> str:
    """95% interval over test images of the difference in image AUROC, averaged over the pairs of runs."""
    rng = np.random.default_rng(0)
    columns = [(scores(first)[0], scores(second)[0]) for first, second in pairs]
    labels = scores(pairs[0][0])[1]
    classes = [np.flatnonzero(labels == value) for value in (False, True)]
    drawn = []
    for _ in range(rounds):
        chosen = np.concatenate([rng.choice(members, len(members)) for members in classes])
        drawn.append(np.mean([auroc(a[chosen], labels[chosen]) - auroc(b[chosen], labels[chosen]) for a, b in columns]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"[{low:.3f}, {high:.3f}]"


def table(name: str, runs: list[dict[str, Path]]) -> None:
    """Prints the table of one data set."""
    results: dict[str, list[dict[str, Any]]] = {
        kind: [json.loads((pair[kind] / "metrics.json").read_text())["metrics"] for pair in runs]
        for kind in ("untrained", "trained")
    }
    print(f"\n{name}, {len(runs)} seeds, mean [95% interval over seeds]\n")
    print("| metric | untrained | CCD | difference |\n| --- | --- | --- | --- |")
    names = [key for key in results["trained"][0] if "auroc" in key]
    for key in names:
        untrained, trained = (np.array([run[key] for run in results[kind]]) for kind in ("untrained", "trained"))
        print(f"| {key} | {interval(untrained)} | {interval(trained)} | {interval(trained - untrained)} |")
    both = zip(results["untrained"], results["trained"], strict=True)
    seeds = ", ".join(f"{before['image/auroc']:.3f} -> {after['image/auroc']:.3f}" for before, after in both)
    print(f"\nImage AUROC by seed: {seeds}")
    print(f"Difference in image AUROC over test images: {bootstrap([(p['trained'], p['untrained']) for p in runs])}")


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=CONFIGS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--root", help="the folder of the set `folder`")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse()
    os.environ.setdefault("COLUMNS", "100")
    for chosen in arguments.sets:
        own = ["--data.root", arguments.root] if chosen == "folder" else []
        table(chosen, [fit_and_test(chosen, seed, own) for seed in range(arguments.seeds)])
