"""How well PaDiM detects on encoders that were not pretrained here: random and ImageNet weights, several seeds.

    python benchmarks/encoders.py colonoscopy fundus DIR ...     # the synthetic sets, and folders of one's own
    python benchmarks/encoders.py DIR --encoders resnet18:null tf_efficientnet_lite0:imagenet

Runs are kept in .bench/ and resumed where they were left. Brackets: 95% intervals over seeds, Student's t.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from detection import CONFIGS, PLACE, logger, metrics, run
from intervals import interval

KEYS = ("image/auroc", "pixel/auroc", "pixel/aupro")
ENCODERS = ("resnet18:null", "tf_efficientnet_lite0:imagenet")


def fit_and_test(dataset: str, encoder: str, seed: int) -> Path:
    """Fits and tests PaDiM; finds what is already there."""
    network, _, weights = encoder.partition(":")
    name = f"{Path(dataset).name}_padim_{network}_{weights}_{seed}"
    folder = PLACE / name / "latest"
    if not (folder / "metrics.json").is_file():
        if not (folder / "run.json").is_file():
            own = [] if dataset in CONFIGS else ["--data.root", dataset]
            config = f"padim_{CONFIGS.get(dataset, 'folder')}"
            chosen = [f"--model.encoder.name={network}", f"--model.encoder.weights={weights}"]
            run(["fit", "--config", config, "--seed_everything", str(seed), *own, *chosen, *logger(name)])
        run(["test", "--ckpt_path", str(folder)])
    return folder


def row(dataset: str, encoder: str, seeds: int) -> str:
    """A line of the table."""
    found = [metrics(fit_and_test(dataset, encoder, seed)) for seed in range(seeds)]
    kinds = sorted(key for key in found[0] if key.startswith("image/auroc/"))
    cells = [interval(np.array([one[key] for one in found])) if key in found[0] else "" for key in KEYS]
    parts = ", ".join(f"{key.rpartition('/')[2]} {np.mean([one[key] for one in found]):.3f}" for key in kinds)
    return f"| {Path(dataset).name} | {encoder} | {' | '.join(cells)} | {parts} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", help=f"one of {', '.join(CONFIGS)}, or the folder of a data set")
    parser.add_argument("--encoders", nargs="+", default=ENCODERS, metavar="NAME:WEIGHTS")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ.setdefault("COLUMNS", "100")
    rows = [row(one, encoder, arguments.seeds) for one in arguments.sets for encoder in arguments.encoders]
    print("\n| data | encoder | image AUROC | pixel AUROC | AUPRO | image AUROC by kind |\n" + "| --- " * 6 + "|")
    print("\n".join(rows))
