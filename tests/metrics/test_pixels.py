from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.special import logit
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score
from torch import Tensor

from ccd_lightning.metrics.histogram import BINS
from ccd_lightning.metrics.pixel_table import PIXEL_METRICS
from ccd_lightning.metrics.pixels import (
    GRID,
    LIMIT,
    PixelRecord,
    coarse,
    pixel_metrics,
    pooled,
    record_pixels,
)
from ccd_lightning.metrics.records import ImageRecord

THRESHOLD = 4.0


def pixels(seed: int, count: int = 12, side: int = 24) -> tuple[Tensor, Tensor]:
    """Maps over four orders of magnitude with brighter lesions and many exact zeros; the first third is normal."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, side, side), dtype=bool)
    for mask in masks[count // 3 :]:
        for _ in range(2):
            row, column = rng.integers(0, side - 6, 2)
            height, width = rng.integers(1, 7, 2)
            mask[row : row + height, column : column + width] = True
    maps = np.exp(1.5 * rng.normal(size=masks.shape) + 1.5 * masks) * (rng.random(masks.shape) < 0.9)
    return torch.from_numpy(maps).float(), torch.from_numpy(masks)


def recorded(maps: Tensor, masks: Tensor, threshold: float = THRESHOLD) -> tuple[list[ImageRecord], list[PixelRecord]]:
    pairs = [
        (f"{index}.png", anomaly_map, mask) for index, (anomaly_map, mask) in enumerate(zip(maps, masks, strict=True))
    ]
    images = [ImageRecord(path, int(mask.any()), "", 0.0) for path, _, mask in pairs]
    return images, [record_pixels(path, anomaly_map, mask, threshold) for path, anomaly_map, mask in pairs]


def measured(maps: Tensor, masks: Tensor, threshold: float = THRESHOLD) -> dict[str, float]:
    return pixel_metrics(*recorded(maps, masks, threshold), threshold, resamples=0).metrics


def aupro(maps: Tensor, masks: Tensor, limit: float = 0.3) -> float:
    """From the definition: the mean share of a region that is found at each threshold, over false positives."""
    regions = []
    for index, mask in enumerate(masks.numpy()):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [(index, labels == region + 1) for region in range(count)]
    false, overlap = [0.0], [0.0]
    for value in np.unique(maps)[::-1]:
        called = maps.numpy() >= value
        false.append(float(called[~masks.numpy()].mean()))
        overlap.append(float(np.mean([called[index][region].mean() for index, region in regions])))
    inner = [index for index, rate in enumerate(false) if rate < limit]
    x = [*np.array(false)[inner], limit]
    y = [*np.array(overlap)[inner], np.interp(limit, false, overlap)]
    return float(np.trapezoid(y, x) / limit)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20, None])
def test_metrics_agree_with_sklearn_in_any_range(scale: float | None) -> None:
    maps, masks = pixels(0)
    maps = maps.log1p().mul(3).round() if scale is None else maps * scale  # rounded: ties, each with a bin of its own
    threshold = THRESHOLD * (scale or 1)
    found = measured(maps, masks, threshold)
    truth, values = masks.flatten().numpy(), maps.flatten().numpy()
    margin = 1e-12 if scale is None else 1e-3
    assert found["pixel/auroc"] == pytest.approx(roc_auc_score(truth, values), abs=margin / 10)
    assert found["pixel/average_precision"] == pytest.approx(average_precision_score(truth, values), abs=margin)
    assert found["pixel/dice"] == pytest.approx(f1_score(truth, values > np.float32(threshold)), abs=1e-12)
    assert found["pixel/iou"] == pytest.approx(jaccard_score(truth, values > np.float32(threshold)), abs=1e-12)
    decisions = [values >= value for value in np.unique(values)[:: 1 if scale is None else 10]]
    best = max(f1_score(truth, called) for called in decisions)
    assert found["pixel/dice_best"] == pytest.approx(best, abs=1e-12 if scale is None else 5e-3)
    assert found["pixel/iou_best"] == pytest.approx(best / (2 - best), abs=1e-12 if scale is None else 5e-3)


@pytest.mark.parametrize("seed", range(3))
def test_aupro_is_that_of_its_definition(seed: int) -> None:
    maps, masks = pixels(seed)
    maps = maps.log1p().mul(10).round()  # ties, each with a bin of its own
    assert measured(maps, masks)["pixel/aupro"] == pytest.approx(aupro(maps, masks), abs=1e-12)


def test_aupro_of_values_without_ties_is_that_of_its_definition() -> None:
    maps, masks = pixels(4, 6, 16)
    assert measured(maps, masks)["pixel/aupro"] == pytest.approx(aupro(maps, masks), abs=1e-4)


def test_regions_touch_at_corners_too() -> None:
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[0, 0] = mask[1, 1] = mask[5, 0:4] = True  # two regions: of two pixels and of four
    record = record_pixels("", torch.arange(36.0).view(6, 6), mask)
    assert record.regions.tolist() == [1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 4, 1 / 4]


def test_every_region_weighs_the_same_in_aupro() -> None:
    masks = torch.zeros(1, 20, 20, dtype=torch.bool)
    masks[0, :10, :10] = masks[0, 15, 15] = True
    maps = torch.zeros(1, 20, 20)
    maps[0, 15, 15] = 1  # the one-pixel region is found at once, the other one not at all
    found = measured(maps, masks)
    assert found["pixel/aupro"] == pytest.approx(0.5 + 0.5 * 0.3 / 2)  # where all tie, it is the diagonal
    assert found["pixel/auroc"] == pytest.approx(0.5 + 0.5 / 101)


def test_a_record_is_bounded_and_merges_neighbouring_bins() -> None:
    maps, masks = torch.rand(1, 200, 200).exp() * torch.logspace(-8, 8, 200), torch.zeros(1, 200, 200, dtype=torch.bool)
    masks[0, 50:60, 50:60] = True
    record = recorded(maps, masks)[1][0]
    assert record.shift > 0
    assert len({*record.normal[0].tolist(), *record.abnormal[0].tolist()}) <= LIMIT
    assert int(record.normal[1].sum()) == 200 * 200 - 100
    assert int(record.abnormal[1].sum()) == 100
    assert record.regions.sum() == pytest.approx(1)


def test_images_of_different_resolution_are_pooled_at_the_coarser_one() -> None:
    wide = torch.rand(200, 200).exp() * torch.logspace(-8, 8, 200)
    mask = torch.zeros(200, 200, dtype=torch.bool)
    mask[80:120, 150:] = True
    narrow = 1 + torch.rand(200, 200)
    maps, masks = torch.stack([wide, narrow, narrow.flip(0)]), torch.stack([mask, mask, torch.zeros_like(mask)])
    _, records = recorded(maps, masks)
    shifts = {record.shift for record in records}
    assert len(shifts) == 2
    counts = pooled(records)
    assert len(counts[0]) == BINS >> max(shifts)
    assert counts[0].sum() + counts[1].sum() == 3 * 200 * 200
    truth, values = masks.flatten().numpy(), maps.flatten().numpy()
    assert measured(maps, masks)["pixel/auroc"] == pytest.approx(roc_auc_score(truth, values), abs=1e-3)
    table = coarse(records, counts)
    assert table.abnormal.sum(axis=1).tolist() == masks.sum(dim=(1, 2)).tolist()
    found = table.evaluator(["pixel/auroc"])(np.ones((1, 3)))
    assert found["pixel/auroc"] == pytest.approx([roc_auc_score(truth, values)], abs=1e-3)


def test_a_bin_of_the_grid_holds_few_pixels() -> None:
    half = torch.rand(8, 32, 64).exp()  # both classes have the same values
    maps, masks = torch.cat([half, half], dim=1), torch.zeros(8, 64, 64, dtype=torch.bool)
    masks[:, :32] = True
    records = recorded(maps, masks)[1]
    counts = pooled(records)
    table = coarse(records, counts)
    for rows, count in zip((table.normal, table.abnormal), counts[:2], strict=True):
        assert count.max() < 0.2 * 2 / GRID * count.sum()  # hardly any ties
        assert rows.sum(axis=0).max() <= 2 / GRID * count.sum() + count.max()


def test_metrics_of_a_resample_are_those_of_the_images_drawn() -> None:
    maps, masks = pixels(7)
    maps = maps.log1p().mul(2).round().clamp(max=6)  # few values, each with a bin of the grid
    images, records = recorded(maps, masks, 2.0)
    table = coarse(records, pooled(records))
    assert table.normal.shape == (12, 7)
    draws = [range(12), [0, 0, 1, 2, 4, 4, 5, 6, 7, 9, 9, 11], [3, 3, 3, 3, 10, 10, 10, 8, 8, 8, 8, 8]]
    drawn = np.array([np.bincount(chosen, minlength=12) for chosen in draws], dtype=np.float64)
    found = table.evaluator(PIXEL_METRICS)(drawn)
    for index, chosen in enumerate(draws):
        expected = pixel_metrics([images[i] for i in chosen], [records[i] for i in chosen], 2.0, resamples=0).metrics
        assert {name: values[index] for name, values in found.items()} == pytest.approx(expected, abs=1e-12)


def test_the_grid_of_the_resamples_keeps_all_counts_and_nearly_all_of_the_metrics() -> None:
    maps, masks = pixels(3, 30)
    images, records = recorded(maps, masks)
    counts = pooled(records)
    rows = coarse(records, counts)[1:4]
    for row, count in zip(rows, counts, strict=True):
        assert row.shape[0] == 30
        assert row.shape[1] <= GRID
        assert row.sum() == pytest.approx(count.sum())
    assert rows[1].sum(axis=1).tolist() == masks.sum(dim=(1, 2)).tolist()
    found = pixel_metrics(images, records, THRESHOLD)
    for name in PIXEL_METRICS:
        low, high = found.intervals[name]
        assert 0 <= low < found.metrics[name] < high <= 1


def test_intervals_are_those_of_resampling_the_images_themselves() -> None:
    images, records = recorded(*pixels(5, 30, 16))
    found = pixel_metrics(images, records, THRESHOLD)
    rng = np.random.default_rng(0)
    drawn: dict[str, list[float]] = {name: [] for name in PIXEL_METRICS}
    for _ in range(200):
        chosen = [*rng.integers(0, 10, 10), *rng.integers(10, 30, 20)]
        again = pixel_metrics([images[i] for i in chosen], [records[i] for i in chosen], THRESHOLD, resamples=0)
        for name, value in again.metrics.items():
            drawn[name].append(value)
    for name, values in drawn.items():
        low, high = found.intervals[name]
        error = (logit(high) - logit(low)) / (2 * 1.96) * found.metrics[name] * (1 - found.metrics[name])
        assert error == pytest.approx(np.std(values), rel=0.25)  # 200 draws know it to a tenth


def test_images_with_empty_masks_do_not_spoil_the_intervals() -> None:
    maps, masks = pixels(0, 4)
    masks[2:3] = False  # abnormal, says its label
    images, records = recorded(maps, masks)
    images = [image._replace(label=int(index > 1)) for index, image in enumerate(images)]
    masks[1] = False
    records[1] = record_pixels("1.png", maps[1], masks[1], THRESHOLD)
    found = pixel_metrics(images, records, THRESHOLD)  # a quarter of the resamples have no abnormal pixel
    for name in PIXEL_METRICS:
        low, high = found.intervals[name]
        assert 0 <= low <= found.metrics[name] <= high <= 1


@pytest.mark.parametrize("value", [-1e-6, float("nan"), float("inf")])
def test_what_cannot_be_ordered_or_matched_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        record_pixels("", torch.tensor([[1.0, value]]), torch.zeros(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="differ in shape"):
        record_pixels("", torch.ones(2, 2), torch.zeros(2, 3, dtype=torch.bool))


def every(names: Sequence[str], reason: str) -> dict[str, str]:
    return dict.fromkeys(names, reason)


def test_undefined_metrics_have_a_reason() -> None:
    maps, masks = pixels(0, 3)
    images, records = recorded(maps, torch.zeros_like(masks))
    assert pixel_metrics(images, records, THRESHOLD).undefined == every(PIXEL_METRICS, "no abnormal pixels")
    images, records = recorded(maps, torch.ones_like(masks))
    assert pixel_metrics(images, records, THRESHOLD).undefined == every(PIXEL_METRICS, "no normal pixels")
    assert pixel_metrics([], [], THRESHOLD).undefined == every(PIXEL_METRICS, "no normal pixels")
    found = pixel_metrics(*recorded(maps, masks, math.nan), math.nan)
    assert found.undefined == every(
        ("pixel/dice", "pixel/iou", "pixel/mean_dice", "pixel/mean_iou"), "no pixel threshold"
    )
    assert set(found.metrics) == set(PIXEL_METRICS) - set(found.undefined)
