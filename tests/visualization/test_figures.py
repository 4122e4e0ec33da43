from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from ccd_lightning.data.placement import Placement
from ccd_lightning.visualization.figures import (
    Case,
    histogram_figure,
    overlay_figure,
    precision_recall_figure,
    roc_comparison_figure,
    roc_figure,
    select_cases,
)
from ccd_lightning.visualization.overlays import COLOURS, OUTLINE, draw_overlay

SCORES = np.array([1.0, 2, 3, 4, 5, 6, 2.5, 3.5, 5.5, 7.5, 8, 9])
LABELS = np.array([0] * 6 + [1] * 6)


def pixels(figure: Figure, folder: Path) -> NDArray[np.uint8]:
    figure.savefig(folder / "figure.png", dpi=60)
    return np.asarray(Image.open(folder / "figure.png").convert("RGB"))


def cases(*kinds: str, score: float = 5.0, known: bool = True) -> list[Case]:
    """Cases whose maps differ a hundredfold, with a square lesion in what is abnormal."""
    mask = np.zeros((16, 16), dtype=bool)
    mask[4:9, 5:11] = True
    return [
        Case(np.full((16, 16, 3), 0.4), mask * 10.0**place, mask & (kind != "good") if known else None, kind, score)
        for place, kind in enumerate(kinds)
    ]


def test_roc_is_the_curve_of_sklearn_with_the_working_point(tmp_path: Path) -> None:
    figure = roc_figure(SCORES, LABELS, 5.0, "AUROC 0.8")
    (axes,) = figure.axes
    curve, _, point = axes.lines
    false, true, _ = roc_curve(LABELS, SCORES, drop_intermediate=False)
    assert np.allclose(curve.get_xydata(), np.stack([false, true], 1), atol=1e-6)
    assert np.allclose(point.get_xydata(), [[1 / 6, 4 / 6]])
    legend = axes.get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == "AUROC 0.8"
    assert pixels(figure, tmp_path).std() > 5


def test_roc_curves_of_several_are_those_of_sklearn() -> None:
    runs = {"first": SCORES, "second": -100 * SCORES**2, "constant": np.zeros(12)}
    figure = roc_comparison_figure(runs, LABELS)
    (axes,), (legend,) = figure.axes, figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    for (name, scores), curve, text in zip(runs.items(), axes.lines, texts, strict=False):
        false, true, _ = roc_curve(LABELS, scores, drop_intermediate=False)
        assert np.allclose(curve.get_xydata(), np.stack([false, true], 1), atol=1e-6)
        assert text == f"{name}: AUROC {roc_auc_score(LABELS, scores):.3f}"
    assert texts[3:] == ["chance"]
    assert len({curve.get_color() for curve in axes.lines}) == 4


@pytest.mark.parametrize("count", [1, 7, 12])
def test_the_title_of_roc_curves_fits(count: int) -> None:
    figure = roc_comparison_figure({f"runs/detector_{index}": SCORES for index in range(count)}, LABELS)
    figure.draw_without_rendering()
    (axes,), (legend,) = figure.axes, figure.legends
    assert axes.title.get_window_extent().y1 <= figure.bbox.y1
    assert axes.xaxis.label.get_window_extent().y0 >= legend.get_window_extent().y1


def test_precision_recall_steps_enclose_the_average_precision(tmp_path: Path) -> None:
    figure = precision_recall_figure(SCORES, LABELS, "AP")
    (axes,) = figure.axes
    recall, precision = np.asarray(axes.lines[0].get_xydata()).T
    area = float((-np.diff(recall) * precision[:-1]).sum())
    assert area == pytest.approx(average_precision_score(LABELS, SCORES), abs=1e-6)
    assert axes.lines[0].get_drawstyle() == "steps-post"  # recall falls along the line, so a step keeps its right end
    assert pixels(figure, tmp_path).std() > 5


def heights(figure: Figure) -> list[float]:
    """The tallest bar of each group."""
    return [float(np.asarray(patch.get_xy())[:, 1].max()) for patch in figure.axes[0].patches]  # type: ignore[attr-defined]


def test_histogram_shows_every_kind_and_the_threshold(tmp_path: Path) -> None:
    figure = histogram_figure({"good": SCORES[:6], "polyp": SCORES[6:9], "ulcer": SCORES[9:]}, threshold=5.0)
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][:3] == ["normal (6)", "polyp (3)", "ulcer (3)"]
    assert list(axes.lines[0].get_xdata()) == [5.0, 5.0]  # type: ignore[arg-type]
    assert len(heights(figure)) == 3
    assert axes.get_xscale() == "linear"
    assert pixels(figure, tmp_path).std() > 5


def test_histogram_keeps_scores_apart_that_span_decades() -> None:
    normal = np.linspace(1, 2, 30)
    figure = histogram_figure({"good": normal, "ulcer": 1e5 * normal}, threshold=2.0)
    assert figure.axes[0].get_xscale() == "log"
    assert max(heights(figure)) < 0.7  # linear bins would put all of the normal images into one


@pytest.mark.parametrize(("scores", "threshold"), [([0.0, 1.0, 1e6], 1.0), ([-3.0, 1e6], 1.0), ([1.0, 1e6], -1.0)])
def test_histogram_is_linear_where_a_logarithm_does_not_exist(
    scores: list[float], threshold: float, tmp_path: Path
) -> None:
    figure = histogram_figure({"good": np.array(scores)}, threshold)
    assert figure.axes[0].get_xscale() == "linear"
    assert pixels(figure, tmp_path).std() > 5


def test_histogram_survives_constant_scores_and_no_threshold(tmp_path: Path) -> None:
    figure = histogram_figure({"good": np.ones(4)}, float("nan"))
    assert heights(figure) == [1.0]
    assert pixels(figure, tmp_path).std() > 5


def test_overlays_have_one_colour_scale_for_all_rows(tmp_path: Path) -> None:
    figure = overlay_figure(cases("polyp", "polyp", "good"), threshold=4.0, limits=(0.0, 100.0))
    assert len(figure.axes) == 3 * 4 + 1
    grid = np.array(figure.axes[:-1]).reshape(3, 4)
    colours = [np.asarray(row[2].images[0].get_array()) / 255 for row in grid]
    for place, shown in enumerate(colours):  # the lesion's value is 1, 10, 100, where 100 is at 3/4 of the colours
        assert shown[6, 7, :3] == pytest.approx(np.array(colormaps[COLOURS](0.75 * 10**place / 100))[:3], abs=0.01)
        assert shown[0, 0, :3] == pytest.approx(np.array(colormaps[COLOURS](0.0))[:3], abs=0.01)
    bar = figure.axes[-1]
    assert bar.get_ylim() == pytest.approx((0.0, 400 / 3))
    assert pixels(figure, tmp_path).std() > 5


def test_overlay_columns_are_named_once() -> None:
    figure = overlay_figure(cases("polyp", "good"), threshold=4.0, limits=(0.0, 100.0))
    titles = [axes.get_title() for axes in figure.axes[:8]]
    assert titles == ["image", "truth", "anomaly map", "overlay", "", "", "", ""]


def test_many_cases_stand_in_two_blocks() -> None:
    shown = cases("polyp", "polyp", "polyp", "good", "good")
    figure = overlay_figure(shown, threshold=4.0, limits=(0.0, 1e5))
    grid = np.array(figure.axes[:-1]).reshape(3, 8)
    places = [*grid[:, 2], *grid[:2, 6]]  # down the left block, then down the right one
    for axes, case in zip(places, shown, strict=True):
        lesion = np.asarray(axes.images[0].get_array())[6, 7, :3] / 255
        assert lesion == pytest.approx(np.array(colormaps[COLOURS](0.75 * case.anomaly_map.max() / 1e5))[:3], abs=0.01)
    assert [axes.get_visible() for axes in grid[:, 4]] == [True, True, False]


@pytest.mark.parametrize(
    ("kind", "score", "title"),
    [
        ("polyp", 5.0, "polyp\n5 > 4\ndetected"),
        ("polyp", 4.0, "polyp\n4 ≤ 4\nmissed"),
        ("intraventricular_haemorrhage", 5.0, "intraventricular\n_haemorrhage\n5 > 4\ndetected"),
        ("good", 5.0, "normal\n5 > 4\nfalse alarm"),
        ("good", 3.0, "normal\n3 ≤ 4\ncleared"),
    ],
)
def test_overlay_rows_say_what_was_decided(kind: str, score: float, title: str) -> None:
    (case,) = cases(kind, score=score)
    assert case.title(4.0) == title
    figure = overlay_figure([case], 4.0, (0.0, 1.0))
    assert figure.axes[0].get_ylabel() == title


def test_overlay_outlines_the_truth_or_says_that_it_is_unknown() -> None:
    figure = overlay_figure([*cases("polyp", "good"), *cases("polyp", known=False)], 4.0, (0.0, 1.0))
    truth = np.array(figure.axes[:-1]).reshape(3, 4)[:, 1]
    corners = truth[0].collections[0].get_paths()[0].vertices
    assert corners.min(axis=0) == pytest.approx([4.5, 3.5])  # half a pixel outside of columns 5 to 10, rows 4 to 8
    assert corners.max(axis=0) == pytest.approx([10.5, 8.5])
    assert [len(axes.collections) for axes in truth] == [1, 0, 0]
    assert [[text.get_text() for text in axes.texts] for axes in truth] == [[], [], ["no mask"]]


def shown_overlays(figure: Figure, count: int) -> list[np.ndarray[Any, Any]]:
    grid = np.array(figure.axes[: 4 * count]).reshape(count, 4)
    return [np.asarray(axes.images[0].get_array()) for axes in grid[:, 3]]


def test_overlays_are_those_of_predict() -> None:
    limits, shown = (0.5, 12.0), cases("polyp", "polyp", "good")
    for case, found in zip(shown, shown_overlays(overlay_figure(shown, 4.0, limits), 3), strict=True):
        image = Image.fromarray(np.rint(255 * case.image).astype(np.uint8))
        expected = draw_overlay(image, case.anomaly_map.astype(np.float32), Placement.whole(image.size), limits)
        assert np.array_equal(found, np.asarray(expected))
    assert (np.asarray(expected) == OUTLINE).all(axis=2).any()  # of the last one, whose lesion is above the threshold


def test_without_limits_nothing_is_laid_over_the_images() -> None:
    (case,) = shown = cases("polyp")
    figure = overlay_figure(shown, 4.0, (float("nan"), float("nan")))
    assert np.array_equal(shown_overlays(figure, 1)[0], case.image)
    assert [text.get_text() for text in figure.axes[3].texts] == ["no threshold"]
    assert figure.axes[-1].get_ylabel() == "anomaly map, own scale"


def test_selected_cases_are_the_extremes_and_a_typical_one() -> None:
    scores = np.random.default_rng(0).permutation(40).astype(float)
    labels = np.array([0, 1] * 20)
    chosen = select_cases(scores, labels, 8)
    abnormal, normal = np.sort(scores[labels == 1])[::-1], np.sort(scores[labels == 0])[::-1]
    assert scores[chosen[:4]].tolist() == abnormal[:4].tolist()
    assert scores[chosen[4:6]].tolist() == abnormal[-2:].tolist()
    assert scores[chosen[6]] == normal[0]
    assert scores[chosen[7]] == normal[10]
    assert labels[chosen].tolist() == [1] * 6 + [0] * 2


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1], [0, 1], [1]])
def test_few_images_are_selected_once(labels: list[int]) -> None:
    chosen = select_cases(np.arange(len(labels), dtype=float), np.array(labels), 8)
    assert len(chosen) == len(set(chosen))
    assert {labels[index] for index in chosen} == set(labels)
