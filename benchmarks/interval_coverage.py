"""How often the 95% intervals of `ccd test` and `ccd compare` hold the truth, on simulated test sets.

    python benchmarks/interval_coverage.py [--rounds 400] [--sets pair]

The truth is the same metric of a test set a hundred times as large or more. With 400 rounds a coverage of 0.95 is known
to 0.02.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np
import torch

from ccd_lightning.metrics.bootstrap import RESAMPLES, units
from ccd_lightning.metrics.detection import Evaluation, ImageRecord
from ccd_lightning.metrics.image import IMAGE_METRICS, image_metrics
from ccd_lightning.metrics.intervals import delong_test
from ccd_lightning.metrics.paired import PAIRED, paired_differences, paired_pixels
from ccd_lightning.metrics.pixel_table import PIXEL_METRICS
from ccd_lightning.metrics.pixels import PixelRecord, coarse, pixel_metrics, pooled, record_pixels
from ccd_lightning.metrics.types import Floats

Draw = Callable[[np.random.Generator, int, int], Evaluation]
PAIR_METRICS = ("image/auroc", *PAIRED)
PIXEL_PAIR = ("pixel/auroc", "pixel/aupro", "pixel/dice", "pixel/mean_auroc", "pixel/mean_dice")
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


def pair_set(normal: int, abnormal: int, per_group: int = 1) -> Draw:
    """Compares two detectors, of which the second errs more, on a test set so many times as large.

    Half of what images differ in, and half of each detector's errors, is of their group.
    """

    def evaluate(rng: np.random.Generator, times: int, resamples: int) -> Evaluation:
        labels = np.repeat([0, 1], [normal * times, abnormal * times])
        groups = np.arange(len(labels)) // per_group

        def noise() -> Floats:
            own, shared = rng.normal(size=len(labels)), rng.normal(size=int(groups[-1]) + 1)[groups]
            return own if per_group == 1 else np.sqrt(0.5) * (own + shared)

        common = 1.5 * labels + np.sqrt(0.5) * noise()
        pair = (common + 0.7 * noise(), common + 1.2 * noise())
        names = [str(group) if per_group > 1 else "" for group in groups]
        images, others = (
            [ImageRecord(f"{i:06d}", int(labels[i]), "", float(own[i]), names[i]) for i in range(len(labels))]
            for own in pair
        )
        metrics = [image_metrics(own, THRESHOLD, PAIR_METRICS, resamples=0).metrics for own in (images, others)]
        difference = {name: metrics[0][name] - metrics[1][name] for name in PAIR_METRICS}
        if not resamples:
            return Evaluation(difference)
        test = delong_test(labels, *pair, units(images))
        found = paired_differences(images, *pair, resamples=resamples)
        intervals = {name: (low, high) for name, (_, low, high) in found.items()}
        return Evaluation(difference, intervals | {"image/auroc": (test.low, test.high)})

    return evaluate


def draw_maps(
    rng: np.random.Generator, count: int, errors: tuple[float, ...]
) -> tuple[list[ImageRecord], list[list[PixelRecord]]]:
    """Each detector's maps, half of them with a square lesion.

    Images differ in brightness, lesions in contrast and size, whatever the detector.
    """
    images: list[ImageRecord] = []
    pixels: list[list[PixelRecord]] = [[] for _ in errors]
    for index in range(count):
        label, path = index % 2, f"{index:06d}"
        mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        if label:
            top, left, side = rng.integers((0, 0, 2), (SIDE - 6, SIDE - 6, 7)).tolist()
            mask[top : top + side, left : left + side] = True
        brightness = rng.normal(0, 0.3)
        noises = [torch.from_numpy(rng.normal(brightness, error, (SIDE, SIDE))) for error in errors]
        contrast = rng.normal(1.5, 0.5)
        images.append(ImageRecord(path, label, "", 0.0))
        for own, noise in zip(pixels, noises, strict=True):
            own.append(record_pixels(path, (noise + contrast * mask).exp(), mask, PIXEL_THRESHOLD))
    return images, pixels


def pixel_set(count: int) -> Draw:
    """Evaluates maps of a test set so many times as large."""

    def evaluate(rng: np.random.Generator, times: int, resamples: int) -> Evaluation:
        images, (pixels,) = draw_maps(rng, count * times, (0.7,))
        return pixel_metrics(images, pixels, PIXEL_THRESHOLD, resamples=resamples)

    return evaluate


def pixel_pair_set(count: int) -> Draw:
    """Compares the maps of two detectors, of which the second errs more."""

    def evaluate(rng: np.random.Generator, times: int, resamples: int) -> Evaluation:
        images, pixels = draw_maps(rng, count * times, (0.7, 1.0))
        metrics = [pixel_metrics(images, own, PIXEL_THRESHOLD, PIXEL_PAIR, resamples=0).metrics for own in pixels]
        difference = {name: metrics[0][name] - metrics[1][name] for name in PIXEL_PAIR}
        if not resamples:
            return Evaluation(difference)
        first, second = (coarse(own, pooled(own)) for own in pixels)
        found = paired_pixels(images, first, second, difference, resamples)
        return Evaluation(difference, {name: (low, high) for name, (_, low, high) in found.items()})

    return evaluate


SETS = {
    "50 + 50 images": (image_set(50, 50), IMAGE_METRICS, 2000),
    "400 + 100 images": (image_set(400, 100), IMAGE_METRICS, 400),
    "80 + 80 images, 4 a patient": (image_set(80, 80, 4), IMAGE_METRICS, 1000),
    "pair, 50 + 50 images": (pair_set(50, 50), PAIR_METRICS, 2000),
    "pair, 400 + 100 images": (pair_set(400, 100), PAIR_METRICS, 400),
    "pair, 80 + 80 images, 4 a patient": (pair_set(80, 80, 4), PAIR_METRICS, 1000),
    "pair, 80 + 80 images, 10 a patient": (pair_set(80, 80, 10), PAIR_METRICS, 1000),
    "pair, maps of 60 + 60 images": (pixel_pair_set(120), PIXEL_PAIR, 100),
    "maps of 60 + 60 images": (pixel_set(120), PIXEL_METRICS, 100),
}


def main() -> None:
    """Prints a table with a row a metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--sets", default="", help="only those whose name begins so")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    print("| test set | metric | truth | coverage | mean width |\n| --- | --- | --- | --- | --- |")
    for name, (evaluate, metrics, times) in SETS.items():
        if not name.startswith(arguments.sets):
            continue
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
