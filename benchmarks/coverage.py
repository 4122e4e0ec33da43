"""How often the 95% intervals of `ccd test` hold the truth, on simulated test sets.

    python benchmarks/coverage.py [--rounds 400]

The truth is the same metric of a test set a hundred times as large or more. With 400 rounds a coverage of 0.95 is known
to 0.02.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np
import torch

from ccd_lightning.evaluation.bootstrap import RESAMPLES
from ccd_lightning.evaluation.image import IMAGE_METRICS, image_metrics
from ccd_lightning.evaluation.metrics import Evaluation, ImageRecord
from ccd_lightning.evaluation.pixels import PIXEL_METRICS, pixel_metrics, record_pixels

Draw = Callable[[np.random.Generator, int, int], Evaluation]
THRESHOLD, PIXEL_THRESHOLD, SIDE = 1.6, 6.0, 16


def scores(rng: np.random.Generator, normal: int, abnormal: int, per_group: int = 1) -> list[ImageRecord]:
    """Scores of two normal distributions 1.5 apart; images of a group share half of their variance."""
    labels = np.repeat([0, 1], [normal, abnormal])
    shared = rng.normal(size=-(-len(labels) // per_group)).repeat(per_group)[: len(labels)]
    own = rng.normal(size=len(labels))
    values = 1.5 * labels + (own if per_group == 1 else np.sqrt(0.5) * (own + shared))
    groups = [str(index // per_group) if per_group > 1 else "" for index in range(len(labels))]
    rows = enumerate(zip(labels.tolist(), values.tolist(), groups, strict=True))
    return [ImageRecord(f"{index:06d}", label, "", value, group) for index, (label, value, group) in rows]


def image_set(normal: int, abnormal: int, per_group: int = 1) -> Draw:
    """Evaluates the scores of a test set so many times as large."""

    def evaluate(rng: np.random.Generator, times: int, resamples: int) -> Evaluation:
        drawn = scores(rng, normal * times, abnormal * times, per_group)
        return image_metrics(drawn, THRESHOLD, resamples=resamples)

    return evaluate


def pixel_set(count: int) -> Draw:
    """Evaluates maps, half of them with a square lesion; images differ in brightness, lesions in contrast and size."""

    def evaluate(rng: np.random.Generator, times: int, resamples: int) -> Evaluation:
        images, pixels = [], []
        for index in range(count * times):
            label, path = index % 2, f"{index:06d}"
            mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
            if label:
                top, left, side = rng.integers((0, 0, 2), (SIDE - 6, SIDE - 6, 7)).tolist()
                mask[top : top + side, left : left + side] = True
            noise = torch.from_numpy(rng.normal(rng.normal(0, 0.3), 0.7, (SIDE, SIDE)))
            maps = (noise + rng.normal(1.5, 0.5) * mask).exp()
            images.append(ImageRecord(path, label, "", 0.0))
            pixels.append(record_pixels(path, maps, mask, PIXEL_THRESHOLD))
        return pixel_metrics(images, pixels, PIXEL_THRESHOLD, resamples=resamples)

    return evaluate


SETS = {
    "50 + 50 images": (image_set(50, 50), IMAGE_METRICS, 2000),
    "400 + 100 images": (image_set(400, 100), IMAGE_METRICS, 400),
    "80 + 80 images, 4 a patient": (image_set(80, 80, 4), IMAGE_METRICS, 1000),
    "maps of 60 + 60 images": (pixel_set(120), PIXEL_METRICS, 100),
}


def main() -> None:
    """Prints a table with a row a metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    rounds = parser.parse_args().rounds
    print("| test set | metric | truth | coverage | mean width |\n| --- | --- | --- | --- | --- |")
    for name, (evaluate, metrics, times) in SETS.items():
        truth = evaluate(np.random.default_rng(1), times, 0).metrics
        held: Counter[str] = Counter()
        width: dict[str, float] = defaultdict(float)
        for seed in range(rounds):
            found = evaluate(np.random.default_rng((2, seed)), 1, RESAMPLES).intervals
            for metric, (low, high) in found.items():
                held[metric] += low <= truth[metric] <= high
                width[metric] += high - low
        for metric in metrics:
            row = f"{truth[metric]:.3f} | {held[metric] / rounds:.3f} | {width[metric] / rounds:.3f}"
            print(f"| {name} | {metric} | {row} |", flush=True)


if __name__ == "__main__":
    main()
