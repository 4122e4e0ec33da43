from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score, roc_auc_score
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_f1_score, binary_jaccard_index

from ccd_lightning.metrics.pixel_means import AT_BEST, MEAN_METRICS
from ccd_lightning.metrics.pixels import pixel_metrics, record_pixels
from ccd_lightning.metrics.records import Evaluation, ImageRecord

THRESHOLD = 4.0
ABNORMAL = (2, 3, 4, 5)


def example(seed: int, values: str = "ties", side: int = 16) -> tuple[Tensor, Tensor]:
    """Two normal maps and four of lesions of very different size, whose brightness differs between images."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((6, side, side), dtype=bool)
    for index, size in zip(ABNORMAL, (1, 3, 6, 12), strict=True):
        row, column = rng.integers(0, side - size, 2)
        masks[index, row : row + size, column : column + size] = True
    maps = np.exp(rng.normal(size=(6, 1, 1)) / 2 + rng.normal(size=masks.shape) + 1.5 * masks)
    return torch.from_numpy((maps * 2).round() / 2 if values == "ties" else maps).float(), torch.from_numpy(masks)


def measured(maps: Tensor, masks: Tensor, resamples: int = 0) -> Evaluation:
    paths = [f"{index}.png" for index in range(len(maps))]
    images = [ImageRecord(path, int(index in ABNORMAL), "", 0.0) for index, path in enumerate(paths)]
    records = [record_pixels(*row, THRESHOLD) for row in zip(paths, maps, masks, strict=True)]
    return pixel_metrics(images, records, THRESHOLD, MEAN_METRICS, resamples)


def mean(score: Callable[..., float], decided: Tensor, masks: Tensor) -> float:
    return float(np.mean([score(masks[index].flatten(), decided[index].flatten()) for index in ABNORMAL]))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("values", "margin"), [("ties", 1e-12), ("continuous", 1e-3)])
def test_means_agree_with_sklearn_on_each_image(seed: int, values: str, margin: float) -> None:
    maps, masks = example(seed, values)
    found = measured(maps, masks).metrics
    assert found["pixel/mean_auroc"] == pytest.approx(mean(roc_auc_score, maps, masks), abs=margin / 10)
    assert found["pixel/mean_dice"] == pytest.approx(mean(f1_score, maps > THRESHOLD, masks), abs=1e-12)
    assert found["pixel/mean_iou"] == pytest.approx(mean(jaccard_score, maps > THRESHOLD, masks), abs=1e-12)
    decisions = [maps >= value for value in np.unique(maps[masks])]  # the best threshold is just below one of these
    for name, score in (("dice", f1_score), ("iou", jaccard_score)):
        best = max(mean(score, decided, masks) for decided in decisions)
        assert found[f"pixel/mean_{name}_best"] == pytest.approx(best, abs=margin)


def test_means_agree_with_torchmetrics_on_each_image() -> None:
    maps, masks = example(3)
    found, truth, decided = measured(maps, masks).metrics, masks.long(), (maps > THRESHOLD).long()
    ranks = maps / maps.max()  # others pass through a sigmoid
    expected = {
        "pixel/mean_auroc": torch.stack([binary_auroc(ranks[i], truth[i]) for i in ABNORMAL]),
        "pixel/mean_dice": torch.stack([binary_f1_score(decided[i], truth[i]) for i in ABNORMAL]),
        "pixel/mean_iou": torch.stack([binary_jaccard_index(decided[i], truth[i]) for i in ABNORMAL]),
    }
    for name, scores in expected.items():
        assert found[name] == pytest.approx(float(scores.mean()), abs=1e-6)


def test_small_lesions_count_as_much_as_large_ones() -> None:
    maps, masks = torch.zeros(6, 16, 16), torch.zeros(6, 16, 16, dtype=torch.bool)
    masks[2, 0, 0] = masks[3:, :8] = True
    maps[3:, :8] = 9.0  # the large ones are marked to the pixel, the small one is not at all
    found = pixel_metrics(
        [ImageRecord(str(index), int(index in ABNORMAL), "", 0.0) for index in range(6)],
        [record_pixels(str(index), maps[index], masks[index], THRESHOLD) for index in range(6)],
        THRESHOLD,
        ("pixel/dice", *MEAN_METRICS),
        resamples=0,
    ).metrics
    assert found["pixel/dice"] > 0.99
    assert found["pixel/mean_dice"] == found["pixel/mean_iou"] == found["pixel/mean_dice_best"] == 0.75
    assert found["pixel/mean_auroc"] == (0.5 + 3) / 4  # all of its image's pixels tie


def test_the_best_threshold_is_one_for_all_images_and_may_differ_between_the_metrics() -> None:
    masks = torch.zeros(6, 1, 40, dtype=torch.bool)
    masks[2:4, 0, :10] = masks[4:, 0, :4] = True
    maps = torch.ones(6, 1, 40)
    maps[2:4, 0, :10] = 3.0
    maps[4:, 0, :20] = torch.tensor([6.0] * 4 + [3.0] * 16)  # at 3 a Dice of 2 * 4 / 24, at 6 of 1
    found = measured(maps, masks).metrics
    assert found["pixel/mean_dice_best"] == pytest.approx((1 + 8 / 24) / 2)
    assert found["pixel/mean_iou_best"] == pytest.approx((1 + 4 / 20) / 2)
    maps[2:4, 0, 5:10] = 1.0  # at 3 a Dice of 2 / 3, an intersection over union of 1 / 2; at 6 none
    found = measured(maps, masks).metrics
    assert found["pixel/mean_dice_best"] == pytest.approx(max((2 / 3 + 1 / 3) / 2, 1 / 2))
    assert found["pixel/mean_iou_best"] == pytest.approx(1 / 2)  # at 6, where at 3 it is 0.35


def test_images_without_a_lesion_or_wholly_covered_by_one_do_not_count() -> None:
    maps, masks = example(4)
    expected = measured(maps, masks).metrics
    maps, masks = torch.cat([maps, torch.ones(1, 16, 16)]), torch.cat([masks, torch.zeros_like(masks[:1])])
    assert measured(maps, masks).metrics == expected  # whatever its label
    masks[2] = True
    found = measured(maps, masks).metrics
    others = [roc_auc_score(masks[index].flatten(), maps[index].flatten()) for index in ABNORMAL[1:]]
    assert found["pixel/mean_auroc"] == pytest.approx(np.mean(others), abs=1e-12)
    assert found["pixel/mean_dice"] == pytest.approx(mean(f1_score, maps > THRESHOLD, masks), abs=1e-12)
    masks[list(ABNORMAL)] = True
    assert measured(maps, masks).undefined == {"pixel/mean_auroc": "no image with normal and abnormal pixels"}


def test_thresholds_are_those_of_the_coarsest_image() -> None:
    maps, masks = example(5, "continuous", 200)
    maps[2] *= torch.logspace(-8, 8, 200)  # of so many values that its bins are merged
    found = measured(maps, masks).metrics
    best = max(mean(f1_score, maps >= value, masks) for value in np.unique(maps[masks]))
    assert found["pixel/mean_dice_best"] == pytest.approx(best, abs=1e-3)


def test_a_perfect_map_is_not_certainty() -> None:
    _, masks = example(0)
    found = measured(masks * 9.0, masks, resamples=200)
    assert set(found.metrics.values()) == {1.0}
    for low, high in found.intervals.values():
        assert low == pytest.approx(0.34, abs=0.01)  # a proportion of two, as many as there are normal images
        assert high == 1.0


def test_intervals_contain_the_value() -> None:
    found = measured(*example(6, "continuous"), resamples=200)
    for name in MEAN_METRICS:
        low, high = found.intervals[name]
        assert 0 < low < found.metrics[name] < high < 1
    assert all(found.metrics[name] >= found.metrics[name.removesuffix("_best")] for name in AT_BEST)
