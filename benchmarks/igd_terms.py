"""What each term of IGD adds: a table of fits without it, each scale tested alone.

    python benchmarks/detection.py colonoscopy --detectors igd                 # makes the encoders
    ccd data synthesize --seed 1 --root .bench/other --test_good 100 --test_abnormal 105
    python benchmarks/igd_terms.py .bench/other

The images are not those that `detection.py` tests on, so that settings can be chosen by this table. Runs are kept in
.bench/ and taken up where they were left.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detection import PLACE, SCALES, alone, logger, metrics, pretrained_weights, run


def both(setting: str) -> list[str]:
    """A setting of both scales, as words."""
    return [f"--model.{scale}.{setting}" for scale in SCALES]


EPOCHS = 15  # half of what the shipped configs give it
FITS = {  # beside what the config says
    "as shipped": [],
    "without similarity (pixels' difference alone)": both("structure=0"),
    "without pixels' difference (similarity alone)": both("structure=1"),
    "with interpolations and critic": ["--model.training.interpolation=0.1"],
    "latents learned": ["--model.whitened=false"],
    "latents learned, without the Gaussian term": ["--model.whitened=false", "--model.training.gaussian=0"],
    "encoders untrained": ["--model.encoder.weights=null", "--model.local_encoder.weights=null"],
}
TESTS = {  # of the shipped fit, each scale alone
    "score without s": both("gaussian=0"),
    "score of s alone": both("gaussian=1"),
}
NAMES = ("image/auroc", "pixel/auroc", "pixel/aupro")


def fit(name: str, root: str, seed: int, words: list[str]) -> Path:
    """Fits IGD with one change, unless that is done already."""
    found = PLACE / name / "latest"
    if not (found / "run.json").is_file():
        weights = pretrained_weights("colonoscopy", seed, "igd")
        length = ["--trainer.max_epochs", str(EPOCHS)]
        config = ["fit", "--config", "igd_folder", "--data.root", root, "--seed_everything", str(seed)]
        run([*config, *length, *weights, *words, *logger(name)])
    return found


def row(title: str, fitted: Path, name: str, words: list[str]) -> None:
    """Prints both scales' figures."""
    results = [metrics(alone(fitted, scale, name, words)) for scale in SCALES]
    cells = [f"{found[key]:.3f}" for found in results for key in NAMES]
    print(f"| {title} | {' | '.join(cells)} |", flush=True)


def main(root: str, seed: int) -> None:
    """Prints the table."""
    print(f"| | {' | '.join(f'{scale}, {key}' for scale in SCALES for key in NAMES)} |\n|{' --- |' * 7}")
    for number, (title, words) in enumerate(FITS.items()):
        name = f"terms_{number}_{seed}"
        fitted = fit(name, root, seed, words)
        row(title, fitted, name, [])
        for place, (title, options) in enumerate(TESTS.items()):
            if number == 0:
                row(title, fitted, f"{name}_{place}", options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="a folder with other images of the same kind")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    main(arguments.root, arguments.seed)
