from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torch import Tensor

from ccd_lightning.evaluation.intervals import delong_interval, wilson_interval
from ccd_lightning.evaluation.metrics import BINS, DetectionMetrics, PixelHistogram

GOOD = "good"


def pixels(seed: int, count: int = 12) -> tuple[Tensor, Tensor]:
    """Maps over four orders of magnitude whose lesions score higher, with many exact zeros."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, 24, 24, generator=generator) < 0.1
    maps = (2 * torch.randn(count, 24, 24, generator=generator) + 1.5 * masks).exp()
    return maps * (torch.rand(maps.shape, generator=generator) < 0.9), masks


def batch(
    labels: Sequence[int], kinds: Sequence[str], masks: Tensor | None = None, first: int = 0, size: int = 4
) -> dict[str, Any]:
    known = [label == 0 or masks is not None for label in labels]
    return {
        "label": torch.tensor(labels),
        "kind": list(kinds),
        "path": [f"{first + index:03d}.png" for index in range(len(labels))],
        "mask": torch.zeros(len(labels), size, size, dtype=torch.bool) if masks is None else masks,
        "has_mask": torch.tensor(known),
    }


def collected(
    scores: Sequence[float], labels: Sequence[int], kinds: Sequence[str] | None = None, with_maps: bool = False
) -> DetectionMetrics:
    metrics = DetectionMetrics()
    named = kinds or [GOOD if label == 0 else "polyp" for label in labels]
    maps = torch.ones(len(labels), 4, 4) if with_maps else None
    metrics.update(batch(labels, named), torch.tensor(scores), maps)
    return metrics


@pytest.fixture(scope="module")
def full() -> tuple[dict[str, Any], Tensor, Tensor]:
    """Normal images and two kinds of abnormal ones, with masks and large scores, as a batch with scores and maps."""
    maps, masks = pixels(1, 60)
    labels = [0] * 24 + [1] * 36
    masks[:24] = False
    generator = torch.Generator().manual_seed(2)
    kinds = [GOOD] * 24 + ["polyp"] * 20 + ["ulcer"] * 16
    scores = 60 + 20 * torch.randn(60, generator=generator) + 15 * torch.tensor(labels)
    return batch(labels, kinds, masks), scores.round(), maps


def part(whole: dict[str, Any], rows: slice) -> dict[str, Any]:
    return {name: value[rows] for name, value in whole.items()}


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20, None])
def test_pixel_histogram_agrees_with_sklearn_in_any_range(scale: float | None) -> None:
    maps, masks = pixels(0)
    maps = maps.log1p().round() if scale is None else maps * scale  # rounded: many ties, each with a bin of its own
    histogram = PixelHistogram()
    histogram.update(maps, masks)
    truth, values, areas = masks.flatten().numpy(), maps.flatten().numpy(), histogram.compute()
    margin = 1e-12 if scale is None else 1e-4
    assert areas["auroc"] == pytest.approx(roc_auc_score(truth, values), abs=margin)
    assert areas["average_precision"] == pytest.approx(average_precision_score(truth, values), abs=10 * margin)


def test_pixel_histogram_streams_exactly_in_bounded_memory() -> None:
    maps, masks = pixels(4, 13)
    streamed, at_once = PixelHistogram(), PixelHistogram()
    at_once.update(maps, masks)
    for start in range(0, 13, 5):
        streamed.update(maps[start : start + 5], masks[start : start + 5])
    assert torch.equal(streamed.counts, at_once.counts)
    assert int(streamed.counts.sum()) == maps.numel()
    assert streamed.counts.shape == (2, BINS)
    assert streamed.compute() == at_once.compute()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_pixel_histogram_bins_other_floats_as_their_float32(dtype: torch.dtype) -> None:
    maps, masks = pixels(5)
    narrow, wide = PixelHistogram(), PixelHistogram()
    narrow.update(maps.clamp(max=1000).to(dtype), masks)
    wide.update(maps.clamp(max=1000).to(dtype).float(), masks)
    assert torch.equal(narrow.counts, wide.counts)


def test_pixel_histogram_puts_both_zeros_in_the_first_bin() -> None:
    histogram = PixelHistogram()
    histogram.update(torch.tensor([[[0.0, -0.0]]]), torch.tensor([[[False, True]]]))
    assert histogram.counts[:, 0].tolist() == [1, 1]


@pytest.mark.parametrize("value", [-1e-6, float("nan"), float("inf")])
def test_pixel_histogram_refuses_what_it_cannot_order_or_match(value: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        PixelHistogram().update(torch.tensor([[[1.0, value]]]), torch.zeros(1, 1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="differ in shape"):
        PixelHistogram().update(torch.ones(1, 2, 2), torch.zeros(1, 2, 3, dtype=torch.bool))


def test_every_metric_agrees_with_sklearn(full: tuple[dict[str, Any], Tensor, Tensor]) -> None:
    rows, scores, maps = full
    metrics = DetectionMetrics()
    metrics.update(rows, scores, maps)
    found = metrics.compute(threshold=70.0)
    truth, values, kinds = rows["label"].numpy(), scores.numpy(), np.array(rows["kind"])
    decided = values > 70
    expected = {
        "image/auroc": roc_auc_score(truth, values),
        "image/average_precision": average_precision_score(truth, values),
        "image/f1": f1_score(truth, decided),
        "image/sensitivity": decided[truth == 1].mean(),
        "image/specificity": 1 - decided[truth == 0].mean(),
        "pixel/auroc": roc_auc_score(rows["mask"].flatten(), maps.flatten()),
        "pixel/average_precision": average_precision_score(rows["mask"].flatten(), maps.flatten()),
    }
    for kind in ("polyp", "ulcer"):
        chosen = (truth == 0) | (kinds == kind)
        index = torch.from_numpy(chosen)
        expected[f"image/auroc/{kind}"] = roc_auc_score(truth[chosen], values[chosen])
        expected[f"image/sensitivity/{kind}"] = decided[kinds == kind].mean()
        expected[f"pixel/auroc/{kind}"] = roc_auc_score(rows["mask"][index].flatten(), maps[index].flatten())
    assert found.metrics == pytest.approx(expected, abs=1e-3)
    assert found.metrics["image/auroc"] == pytest.approx(expected["image/auroc"], abs=1e-6)
    assert found.undefined == {}


def test_scores_far_above_one_keep_their_order() -> None:
    # torchmetrics' sigmoid makes all of these 1.0 in float32, and the area 0.5.
    assert collected([20.0, 30.0, 40.0, 50.0], [0, 0, 1, 1]).compute(35.0).metrics["image/auroc"] == 1.0


def test_a_score_at_the_threshold_is_normal() -> None:
    found = collected([1.0, 2.0, 2.0, 3.0], [0, 0, 1, 1]).compute(2.0).metrics
    assert (found["image/specificity"], found["image/sensitivity"]) == (1.0, 0.5)


def test_one_kind_is_not_reported_twice() -> None:
    found = collected([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1]).compute(2.0)
    assert not [name for name in (*found.metrics, *found.undefined) if name.endswith("/polyp")]


def test_ranks_add_up_to_the_same_numbers(full: tuple[dict[str, Any], Tensor, Tensor]) -> None:
    rows, scores, maps = full
    one = DetectionMetrics()
    one.update(rows, scores, maps)
    ranks = [DetectionMetrics(), DetectionMetrics()]
    for place, step in ((0, slice(0, 60, 2)), (1, slice(1, 41, 2)), (1, slice(41, 60, 2))):  # uneven, interleaved
        ranks[place].update(part(rows, step), scores[step], maps[step])
    states = [pickle.loads(pickle.dumps(rank.state())) for rank in reversed(ranks)]  # as gathering sends them
    total = DetectionMetrics.merged(states)
    assert total.records == one.records
    assert total.compute(70.0) == one.compute(70.0)
    assert DetectionMetrics.merged([one.state()]).compute(70.0) == one.compute(70.0)


def test_images_without_masks_leave_the_pixel_metrics(full: tuple[dict[str, Any], Tensor, Tensor]) -> None:
    rows, scores, maps = full
    hidden = rows | {"has_mask": torch.tensor([kind != "ulcer" for kind in rows["kind"]])}
    metrics = DetectionMetrics()
    metrics.update(hidden, scores, maps)
    found = metrics.compute(70.0)
    known = hidden["has_mask"]
    expected = roc_auc_score(rows["mask"][known].flatten(), maps[known].flatten())
    assert found.metrics["pixel/auroc"] == pytest.approx(expected, abs=1e-4)
    assert found.undefined == {"pixel/auroc/ulcer": "no masks"}
    assert "pixel/auroc/ulcer" not in found.metrics


IMAGE = ("auroc", "average_precision", "f1", "sensitivity", "specificity")
PIXEL = {"pixel/auroc", "pixel/average_precision"}


@pytest.mark.parametrize(
    ("labels", "reason", "defined"),
    [
        ([0, 0, 0], "no abnormal images", {"image/specificity"}),
        ([1, 1, 1], "no normal images", {"image/sensitivity"}),
        ([], "no abnormal images", set()),
    ],
)
def test_what_one_class_cannot_define_has_a_reason(labels: list[int], reason: str, defined: set[str]) -> None:
    found = collected([1.0, 2.0, 3.0][: len(labels)], labels).compute(2.5)
    missing = {f"image/{name}" for name in IMAGE} - defined
    assert set(found.metrics) == defined
    assert set(found.undefined) == missing | PIXEL
    assert {found.undefined[name] for name in missing} == {reason}


@pytest.mark.parametrize(
    ("labels", "with_maps", "reason"),
    [
        ([0, 0, 1], False, "no anomaly maps"),
        ([0, 0, 0], True, "no abnormal images"),
        ([0, 0, 1], True, "no masks"),
        ([1, 1, 1], True, "no masks"),
    ],
)
def test_undefined_pixel_metrics_have_a_reason(labels: list[int], with_maps: bool, reason: str) -> None:
    found = collected([1.0, 2.0, 3.0], labels, with_maps=with_maps).compute(2.5)
    assert {name: found.undefined.get(name) for name in PIXEL} == dict.fromkeys(PIXEL, reason)
    assert not PIXEL & set(found.metrics)


def test_empty_masks_are_not_missing_masks() -> None:
    metrics = DetectionMetrics()
    empty = torch.zeros(2, 4, 4, dtype=torch.bool)
    metrics.update(batch([0, 1], [GOOD, "polyp"], empty), torch.tensor([1.0, 2.0]), torch.ones(2, 4, 4))
    assert metrics.compute(1.5).undefined == dict.fromkeys(PIXEL, "no abnormal pixels")


def test_a_kind_that_is_undefined_has_its_reason() -> None:
    found = collected([1.0, 2.0, 3.0], [1, 1, 1], ["polyp", "polyp", "ulcer"]).compute(1.5)
    assert found.metrics["image/sensitivity/polyp"] == 0.5
    assert {found.undefined[f"image/auroc/{kind}"] for kind in ("polyp", "ulcer")} == {"no normal images"}


def test_without_a_threshold_decisions_are_undefined_not_zero() -> None:
    found = collected([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1]).compute(float("nan"))
    decisions = {f"image/{name}" for name in ("f1", "sensitivity", "specificity")}
    assert {found.undefined.get(name) for name in decisions} == {"no threshold"}
    assert not decisions & (set(found.metrics) | set(found.intervals))
    assert found.metrics["image/auroc"] == 1.0


def test_a_score_that_is_no_number_names_the_image() -> None:
    with pytest.raises(ValueError, match=r"001\.png"):
        collected([1.0, float("nan")], [0, 1])


def test_intervals_of_the_metrics_are_those_of_their_counts() -> None:
    scores = np.array([1.0, 2, 3, 4, 5, 6, 2.5, 3.5, 5.5, 7.5, 8])
    labels = [0] * 6 + [1] * 5
    found = collected(scores.tolist(), labels).compute(3.2)
    assert found.intervals["image/sensitivity"] == pytest.approx(wilson_interval(4, 5))
    assert found.intervals["image/specificity"] == pytest.approx(wilson_interval(3, 6))
    assert found.intervals["image/auroc"] == pytest.approx(delong_interval(scores[:6], scores[6:]))
