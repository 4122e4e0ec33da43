from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ccd_lightning.metrics.detection import SIZES, SUBSET_METRICS, DetectionMetrics, Evaluation, part_of
from ccd_lightning.metrics.image import IMAGE_METRICS, image_metrics
from ccd_lightning.metrics.pixel_table import PIXEL_METRICS

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
        "anomaly_type": list(kinds),
        "group": [""] * len(labels),
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


def test_pixels_of_margins_do_not_count(full: tuple[dict[str, Any], Tensor, Tensor]) -> None:
    rows, scores, maps = full
    height, width = maps.shape[1:]
    cut = rows | {"mask": rows["mask"][:, 2 : height - 1, 3:]}
    alone, within = DetectionMetrics(2.0), DetectionMetrics(2.0)
    alone.update(cut, scores, maps[:, 2 : height - 1, 3:])
    box = torch.tensor([2, 3, height - 1, width]).expand(len(scores), -1)
    within.update(rows | {"content": box}, scores, maps)
    assert within.records == alone.records  # areas are shares of the content
    assert within.compute(threshold=70.0) == alone.compute(threshold=70.0)


def test_parts_agree_with_sklearn(full: tuple[dict[str, Any], Tensor, Tensor]) -> None:
    rows, scores, maps = full
    metrics = DetectionMetrics(2.0)
    metrics.update(rows, scores, maps)
    found = metrics.compute(threshold=70.0)
    truth, values, kinds = rows["label"].numpy(), scores.numpy(), np.array(rows["anomaly_type"])
    areas = rows["mask"].double().mean(dim=(1, 2)).numpy()
    low, high = np.quantile(areas[truth == 1], (1 / 3, 2 / 3))
    chosen = {kind: kinds == kind for kind in ("polyp", "ulcer")}
    chosen |= dict(zip(SIZES, (areas <= low, (areas > low) & (areas <= high), areas > high), strict=True))
    expected = {}
    for part, members in chosen.items():
        shown = (truth == 0) | members
        index, masks = torch.from_numpy(shown), rows["mask"][torch.from_numpy(shown)].flatten()
        expected[f"image/auroc/{part}"] = roc_auc_score(truth[shown], values[shown])
        expected[f"image/sensitivity/{part}"] = (values > 70)[members & (truth == 1)].mean()
        expected[f"pixel/auroc/{part}"] = roc_auc_score(masks, maps[index].flatten())
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    assert metrics.size_bounds() == (low, high)
    parts = {f"{name}/{part}" for name in SUBSET_METRICS for part in chosen}
    assert set(found.metrics) == {*IMAGE_METRICS, *PIXEL_METRICS, *parts}
    assert set(found.intervals) == set(found.metrics)
    assert found.undefined == {}


def test_sizes_need_masks_that_differ() -> None:
    masks = torch.zeros(4, 4, 4, dtype=torch.bool)
    for index, area in enumerate((0, 1, 2, 3)):
        masks[index, 0, :area] = True
    metrics = DetectionMetrics()
    metrics.update(batch([0, 1, 1, 1], [GOOD, "polyp", "polyp", "polyp"], masks), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    found = metrics.compute(2.5).metrics  # image metrics by size, without maps
    assert [found[f"image/sensitivity/{size}"] for size in SIZES] == [0, 1, 1]
    masks[1:] = masks[1]
    metrics = DetectionMetrics()
    metrics.update(batch([0, 1, 1, 1], [GOOD, "polyp", "polyp", "polyp"], masks), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert metrics.size_bounds() is None
    assert not [name for name in metrics.compute(2.5).metrics if name.endswith(SIZES)]


def test_kinds_that_are_called_like_sizes_stay_apart_from_them() -> None:
    masks = torch.zeros(4, 4, 4, dtype=torch.bool)
    for index, area in enumerate((0, 1, 2, 3)):
        masks[index, 0, :area] = True
    kinds = [GOOD, "size_large", "size_small", "kind_size_small"]  # the smallest lesion is of the kind size_large
    metrics = DetectionMetrics()
    metrics.update(batch([0, 1, 1, 1], kinds, masks), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    found = metrics.compute(2.5).metrics
    assert [found[f"image/sensitivity/{size}"] for size in SIZES] == [0, 1, 1]
    named = ("kind_size_large", "kind_size_small", "kind_kind_size_small")
    assert [found[f"image/sensitivity/{part}"] for part in named] == [0, 1, 1]
    assert len([name for name in found if name.startswith("image/sensitivity/")]) == 6
    assert [part_of(kind) for kind in ("polyp", "kind_polyp", "size", "size_small_2")] == [
        "polyp", "kind_polyp", "size", "size_small_2",
    ]  # fmt: skip


def test_scores_far_above_one_keep_their_order() -> None:
    # torchmetrics' sigmoid makes all of these 1.0 in float32, and the area 0.5.
    assert collected([20.0, 30.0, 40.0, 50.0], [0, 0, 1, 1]).compute(35.0).metrics["image/auroc"] == 1.0


def test_a_score_at_the_threshold_is_normal() -> None:
    found = collected([1.0, 2.0, 2.0, 3.0], [0, 0, 1, 1]).compute(2.0).metrics
    assert (found["image/specificity"], found["image/sensitivity"]) == (1.0, 0.5)


def test_one_kind_is_not_reported_twice() -> None:
    found = collected([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1]).compute(2.0)
    assert not [name for name in (*found.metrics, *found.undefined) if name.endswith("/polyp")]


def test_results_of_several_ranks_are_those_of_one(full: tuple[dict[str, Any], Tensor, Tensor]) -> None:
    rows, scores, maps = full
    rows = rows | {"group": [str(index // 3) for index in range(60)]}
    one = DetectionMetrics(2.0)
    one.update(rows, scores, maps)
    ranks = [DetectionMetrics(2.0), DetectionMetrics(2.0)]
    for place, step in ((0, slice(0, 60, 2)), (1, slice(1, 41, 2)), (1, slice(41, 60, 2))):  # uneven, interleaved
        ranks[place].update(part(rows, step), scores[step], maps[step])
    states = [pickle.loads(pickle.dumps(rank.state())) for rank in reversed(ranks)]  # as gathering sends them
    total = DetectionMetrics.merged(states)
    assert total.records == one.records
    assert total.compute(70.0) == one.compute(70.0)
    assert DetectionMetrics.merged(states[::-1]).compute(70.0) == one.compute(70.0)
    assert DetectionMetrics.merged([one.state()]).compute(70.0) == one.compute(70.0)


def test_an_image_that_two_ranks_tested_is_refused(full: tuple[dict[str, Any], Tensor, Tensor]) -> None:
    rows, scores, maps = full
    ranks = [DetectionMetrics(), DetectionMetrics()]
    ranks[0].update(part(rows, slice(0, 31)), scores[:31], maps[:31])
    ranks[1].update(part(rows, slice(30, 60)), scores[30:], maps[30:])
    with pytest.raises(ValueError, match=r"030\.png was tested 2 times"):
        DetectionMetrics.merged(rank.state() for rank in ranks)


def test_images_without_masks_leave_the_pixel_metrics(full: tuple[dict[str, Any], Tensor, Tensor]) -> None:
    rows, scores, maps = full
    hidden = rows | {"has_mask": torch.tensor([kind != "ulcer" for kind in rows["anomaly_type"]])}
    metrics = DetectionMetrics()
    metrics.update(hidden, scores, maps)
    found = metrics.compute(70.0)
    known = hidden["has_mask"]
    expected = roc_auc_score(rows["mask"][known].flatten(), maps[known].flatten())
    assert found.metrics["pixel/auroc"] == pytest.approx(expected, abs=1e-4)
    thresholded = {f"pixel/{name}": "no pixel threshold" for name in ("dice", "iou", "mean_dice", "mean_iou")}
    parts = {f"pixel/{name}/ulcer": "no masks" for name in ("auroc", "aupro")}
    assert found.undefined == thresholded | parts
    assert "pixel/auroc/ulcer" not in found.metrics


PIXEL = set(PIXEL_METRICS)


@pytest.mark.parametrize(
    ("labels", "reason", "defined"),
    [
        ([0, 0, 0], "no abnormal images", {"image/specificity"}),
        ([1, 1, 1], "no normal images", {"image/sensitivity"}),
    ],
)
def test_what_one_class_cannot_define_has_a_reason(labels: list[int], reason: str, defined: set[str]) -> None:
    found = collected([1.0, 2.0, 3.0][: len(labels)], labels).compute(2.5)
    missing = set(IMAGE_METRICS) - defined
    assert set(found.metrics) == defined
    assert set(found.undefined) == missing | PIXEL
    assert {found.undefined[name] for name in missing} == {reason}


def test_of_no_images_everything_is_undefined() -> None:
    found = DetectionMetrics.merged([]).compute(2.5)
    assert found.metrics == {}
    assert found.undefined.keys() == {*IMAGE_METRICS, *PIXEL}
    assert set(found.undefined.values()) == {"no abnormal images", "no normal images"}


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
    decisions = {f"image/{name}" for name in ("accuracy", "f1", "sensitivity", "specificity")}
    assert {found.undefined.get(name) for name in decisions} == {"no threshold"}
    assert not decisions & (set(found.metrics) | set(found.intervals))
    assert found.metrics["image/auroc"] == 1.0


def test_a_score_that_is_no_number_names_the_image() -> None:
    with pytest.raises(ValueError, match=r"001\.png"):
        collected([1.0, float("nan")], [0, 1])


def test_groups_reach_the_intervals() -> None:
    labels, scores = [0] * 8 + [1] * 8, torch.arange(16.0).roll(3)
    rows = batch(labels, [GOOD if label == 0 else "polyp" for label in labels])
    metrics = DetectionMetrics()
    metrics.update(rows | {"group": [str(index // 4) for index in range(16)]}, scores)
    assert {record.group for record in metrics.records} == {"0", "1", "2", "3"}
    assert metrics.compute(7.0) == image_and_reasons(metrics, 7.0)
    alone = DetectionMetrics()
    alone.update(rows, scores)
    assert alone.compute(7.0).intervals != metrics.compute(7.0).intervals


def image_and_reasons(metrics: DetectionMetrics, threshold: float) -> Evaluation:
    expected = image_metrics(metrics.records, threshold)
    expected.undefine(PIXEL_METRICS, "no anomaly maps")
    return expected
