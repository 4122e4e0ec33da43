"""How often two equally good detectors differ "significantly" in AUROC where images are of patients, simulated.

    python benchmarks/false_alarms.py [--rounds 1600]

It should be 5%. With 1,600 rounds that is known to 0.5 points (standard error); the bootstrap has a quarter of them.
"""

from __future__ import annotations

import argparse

import numpy as np

from ccd_lightning.metrics import threshold_metrics as curves
from ccd_lightning.metrics.bootstrap import units
from ccd_lightning.metrics.intervals import delong_test
from ccd_lightning.metrics.paired import paired_differences
from ccd_lightning.metrics.records import ImageRecord
from ccd_lightning.metrics.types import Floats, Integers

SORTS = ("all normal or all abnormal", "half and half", "a third of each sort")
SIZES = ((12, 6), (20, 6), (40, 4), (100, 4))  # patients, and images of each


def draw(rng: np.random.Generator, sort: str, patients: int, images: int) -> tuple[Integers, Integers, list[Floats]]:
    """Labels, patients and two detectors' scores, whose errors are half the patient's and half the image's."""
    half, groups = np.arange(images) >= images // 2, np.arange(patients).repeat(images)
    kinds = {SORTS[0]: [half & False, half | True], SORTS[1]: [half], SORTS[2]: [half & False, half | True, half]}[sort]
    labels = np.concatenate([kinds[patient % len(kinds)] for patient in range(patients)]).astype(np.int64)
    common = rng.normal(size=patients)[groups] + rng.normal(size=len(labels))
    errors = [rng.normal(size=patients)[groups] + rng.normal(size=len(labels)) for _ in range(2)]
    return labels, groups, [1.2 * labels + 0.7 * (common + error) for error in errors]


def main() -> None:
    """Prints a table with a row a sort of patients and their number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1600)
    rounds = parser.parse_args().rounds
    print("| patients' images | patients | images each | DeLong, ungrouped | Obuchowski | bootstrap by patient |")
    print("| --- | --- | --- | --- | --- | --- |")
    for sort in SORTS:
        for patients, images in SIZES:
            wrong = np.zeros(3)
            for seed in range(rounds):
                labels, groups, (first, second) = draw(np.random.default_rng(seed), sort, patients, images)
                rows = zip(labels.tolist(), groups.tolist(), strict=True)
                records = [ImageRecord(str(i), label, "", 0.0, str(group)) for i, (label, group) in enumerate(rows)]
                wrong[0] += delong_test(labels, first, second).p < 0.05
                wrong[1] += delong_test(labels, first, second, units(records)).p < 0.05
                if seed % 4 == 0:
                    area = {"auroc": curves.partial_auc}
                    _, low, high = paired_differences(records, first, second, area, 500)["auroc"]
                    wrong[2] += 4 * (not low <= 0 <= high)
            cells = " | ".join(f"{share:.1%}" for share in wrong / rounds)
            print(f"| {sort} | {patients} | {images} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
