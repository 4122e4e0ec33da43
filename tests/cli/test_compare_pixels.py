from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ccd_lightning.metrics.paired import paired_pixels
from ccd_lightning.metrics.pixel_table import PIXELS, PixelTable, write_pixels
from tests.tested_runs import (
    GOOD,
    LABELS,
    OTHER,
    POOR,
    compare_lines,
    differences,
    interval,
    leave,
    output_without_torch,
    records,
)

NAMES = ("pixel/auroc", "pixel/aupro", "pixel/dice", "pixel/mean_auroc", "pixel/mean_dice")
VALUES = {
    "first": (0.9, 0.8, 0.7, 0.91, 0.6),
    "second": (0.85, 0.65, 0.72, 0.88, 0.58),
    "third": (0.5, 0.4, 0.3, 0.52, 0.25),
}
KNOWN = [index for index in range(21) if index != 15]  # an abnormal image without a mask


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def pixels(seed: int, root: str = "data", masks: NDArray[np.int64] | None = None) -> PixelTable:
    """Of 20 images, in 6 + seed bins, higher ones where abnormal."""
    rng, bins = np.random.default_rng(seed), 6 + seed
    sizes = (10 + np.arange(21)) * LABELS if masks is None else masks
    rising = np.arange(1, bins + 1.0)
    normal = np.stack([rng.multinomial(400 - size, rising[::-1] / rising.sum()) for size in sizes])
    abnormal = np.stack([rng.multinomial(size, rising / rising.sum()) for size in sizes])
    above = np.stack([normal[:, -2:].sum(axis=1), abnormal[:, -2:].sum(axis=1)], axis=1)
    paths = [f"{root}/test/{'polyp' if label else 'good'}/{index:02}.png" for index, label in enumerate(LABELS)]
    regions = abnormal / np.maximum(sizes, 1)[:, None]
    aurocs = np.where(sizes > 0, rng.random(21), np.nan)
    counts = [count.astype(np.float64) for count in (normal, abnormal, regions, above, aurocs)]
    return PixelTable(paths, *counts).take(np.array(KNOWN))


def keep(
    name: str,
    scores: NDArray[np.float64],
    table: PixelTable | None,
    root: str = "data",
    groups: Sequence[str] | None = None,
    metrics: Sequence[str] = NAMES,
) -> str:
    """Makes the folder of a tested run that kept its pixels."""
    run = Path(leave(name, scores, root=root, groups=groups))
    content = json.loads((run / "metrics.json").read_text())
    content["metrics"] |= {
        metric: value for metric, value in zip(NAMES, VALUES[name], strict=True) if metric in metrics
    }
    (run / "metrics.json").write_text(json.dumps(content))
    write_pixels(run / PIXELS, table)
    return name


def expected(
    first: PixelTable, second: PixelTable, name: str, groups: Sequence[str] = ("",) * 21
) -> dict[str, list[str]]:
    images = [records(groups)[index] for index in KNOWN]
    exact = {metric: VALUES[name][place] - VALUES["first"][place] for place, metric in enumerate(NAMES)}
    return {metric: interval(*found) for metric, found in paired_pixels(images, second, first, exact).items()}


def test_pixel_metrics_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    one, two, three = (pixels(seed) for seed in range(3))
    runs = keep("first", GOOD, one), keep("second", POOR, two), keep("third", OTHER, three)
    lines = compare_lines(*runs, capsys=capsys)
    rows = differences(lines, "first")
    for metric in NAMES:
        assert rows[metric][1:] == expected(one, two, "second")[metric] + expected(one, three, "third")[metric]
    assert "not compared" not in "\n".join(lines)


def test_moved_images_are_matched_and_groups_respected(capsys: pytest.CaptureFixture[str]) -> None:
    groups = [f"patient {index % 8}" for index in range(21)]
    one, two = pixels(0), pixels(1, "/elsewhere/data")
    shuffled = two.take(np.random.default_rng(0).permutation(20))
    runs = keep("first", GOOD, one, groups=groups), keep("second", POOR, shuffled, "/elsewhere/data")
    rows = differences(compare_lines(*runs, capsys=capsys), "first")
    for metric in NAMES:
        assert rows[metric][1:] == expected(one, two, "second", groups)[metric]
    assert expected(one, two, "second", groups) != expected(one, two, "second")


def test_metrics_that_one_run_lacks_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    keep("first", GOOD, pixels(0))
    keep("second", POOR, pixels(1), metrics=NAMES[:2])  # fitted without validation: no pixel threshold
    keep("third", OTHER, None, metrics=())  # without maps
    lines = compare_lines("first", "second", "third", capsys=capsys)
    rows = differences(lines, "first")
    assert rows["pixel/aupro"][-1] == "-"
    assert "pixel/dice" not in rows
    assert "not compared" not in "\n".join(lines)
    assert not [
        row for row in differences(compare_lines("third", "first", capsys=capsys), "third") if row.startswith("pixel")
    ]


@pytest.mark.parametrize("lacking", ["first", "second"])
def test_old_runs_are_reported_in_one_line(lacking: str, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, (name, scores) in enumerate({"first": GOOD, "second": POOR, "third": OTHER}.items()):
        keep(name, scores, None if name == lacking else pixels(seed))
    lines = compare_lines("first", "second", "third", capsys=capsys)
    told_of = [line for line in lines if "pixel metrics are not compared" in line]
    assert len(told_of) == 1
    reason = f"{lacking}/pixels.npz: not found; older versions did not write it."
    assert told_of[0].endswith(f"{reason} Write it with: ccd test --ckpt_path {lacking}")
    rows = differences(lines, "first")
    assert ("pixel/auroc" in rows) == (lacking == "second")
    assert rows["image/auroc"]
    if lacking == "second":
        assert rows["pixel/auroc"][1] == "-"
        assert rows["pixel/auroc"][2:] == expected(pixels(0), pixels(2), "third")["pixel/auroc"]


def test_what_does_not_belong_together_is_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    keep("first", GOOD, pixels(0))
    keep("second", POOR, pixels(1, masks=(11 + np.arange(21)) * LABELS))
    assert compare_lines("first", "second", capsys=capsys)[-1] == (
        "pixel metrics are not compared: second was tested with other masks than first."
    )
    write_pixels(Path("second", PIXELS), pixels(1).take(np.arange(3, 20)))
    assert "other masks" in compare_lines("first", "second", capsys=capsys)[-1]
    write_pixels(Path("second", PIXELS), pixels(1, "other"))
    expected_words = "second/pixels.npz has images that second/predictions.csv does not list"
    assert expected_words in compare_lines("first", "second", capsys=capsys)[-1]
    Path("second", PIXELS).write_bytes(b"PK")
    assert "second/pixels.npz: cannot be read (" in compare_lines("first", "second", capsys=capsys)[-1]
    for name in ("first", "second"):
        write_pixels(Path(name, PIXELS), pixels(0).take(np.arange(10)))  # one abnormal image
    assert "at least two normal and two abnormal" in compare_lines("first", "second", capsys=capsys)[-1]


@pytest.mark.process
def test_comparing_pixels_imports_no_torch() -> None:
    runs = [keep("first", GOOD, pixels(0)), keep("second", POOR, pixels(1))]
    assert output_without_torch("compare", *runs).count("pixel/aupro") == 2
