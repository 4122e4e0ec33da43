from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ccd_lightning.errors import UserError
from ccd_lightning.metrics.paired import paired_pixels
from ccd_lightning.metrics.pixel_table import PIXEL_METRICS, PIXELS, PixelTable, read_pixels, write_pixels
from ccd_lightning.metrics.pixels import PixelRecord, coarse, pixel_metrics, pooled, record_pixels
from ccd_lightning.metrics.records import ImageRecord
from ccd_lightning.metrics.types import Floats

NAMES = ("pixel/auroc", "pixel/aupro", "pixel/dice", "pixel/mean_auroc", "pixel/mean_dice", "pixel/mean_iou_best")
THRESHOLDS = (4.0, 5.0)  # each detector has its own


def detectors(seed: int, count: int = 30, groups: int = 0) -> tuple[list[ImageRecord], list[list[PixelRecord]]]:
    """Two detectors' maps of the same images, the first third normal; the second one errs more."""
    rng, side = np.random.default_rng(seed), 20
    shared = rng.normal(size=(count, 1, 1)) / 3
    masks = np.zeros((count, side, side), dtype=bool)
    for mask in masks[count // 3 :]:
        row, column, height, width = rng.integers((0, 0, 2, 2), (14, 14, 7, 7))
        mask[row : row + height, column : column + width] = True
    rows: list[list[PixelRecord]] = []
    for contrast, threshold in zip((2.0, 1.6), THRESHOLDS, strict=True):
        maps = np.exp(shared + rng.normal(size=masks.shape) + (contrast + rng.normal(size=(count, 1, 1)) / 3) * masks)
        pairs = zip(torch.from_numpy(maps), torch.from_numpy(masks), strict=True)
        rows.append([record_pixels(f"{i:02}.png", one, mask, threshold) for i, (one, mask) in enumerate(pairs)])
    names = [str(index % groups) if groups else "" for index in range(count)]
    images = [ImageRecord(f"{i:02}.png", int(i >= count // 3), "", 0.0, names[i]) for i in range(count)]
    return images, rows


def table(pixels: list[PixelRecord]) -> PixelTable:
    return coarse(pixels, pooled(pixels))


def exact(images: list[ImageRecord], rows: list[list[PixelRecord]]) -> dict[str, float]:
    one, other = (
        pixel_metrics(images, own, threshold, NAMES, resamples=0).metrics
        for own, threshold in zip(rows, THRESHOLDS, strict=True)
    )
    return {name: one[name] - other[name] for name in NAMES}


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    _, (pixels, _) = detectors(0)
    pixels[3] = pixels[3]._replace(path="ü, 'quoted'.png", above=(70_000, 3))  # more than two bytes hold
    expected = table(pixels)
    write_pixels(tmp_path / PIXELS, expected)
    found = read_pixels(tmp_path)
    assert found.paths == [record.path for record in pixels]
    for name in ("normal", "abnormal", "above"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    for name in ("regions", "aurocs"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-6, nan_ok=True)
    assert [entry.name for entry in tmp_path.iterdir()] == [PIXELS]
    assert found.take(np.array([3, 0])).paths == ["ü, 'quoted'.png", "00.png"]
    assert np.array_equal(found.take(np.array([3, 0])).normal, expected.normal[[3, 0]])


def test_a_table_of_an_earlier_version_has_all_but_the_areas_of_each_image(tmp_path: Path) -> None:
    arrays = table(detectors(0)[1][0])._asdict()
    aurocs = arrays.pop("aurocs")
    np.savez(tmp_path / PIXELS, allow_pickle=False, **arrays)
    found = read_pixels(tmp_path)
    assert np.array_equal(found.above, arrays["above"])
    assert found.aurocs.shape == aurocs.shape
    assert np.isnan(found.aurocs).all()


def test_a_table_is_small(tmp_path: Path) -> None:
    pixels = detectors(0, 120)[1][0]
    write_pixels(tmp_path / PIXELS, table(pixels))
    assert (tmp_path / PIXELS).stat().st_size < 120 * 1024  # a KB an image; the arrays have twelve


def test_the_table_of_an_earlier_test_is_removed(tmp_path: Path) -> None:
    write_pixels(tmp_path / PIXELS, table(detectors(0)[1][0]))
    write_pixels(tmp_path / PIXELS, None)
    write_pixels(tmp_path / PIXELS, None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "damage",
    ["missing", "empty", "text", "cut", "flipped", "array", "lacking", "short", "long", "areas", "normal", "pickled"],
)
def test_damaged_tables_are_refused(damage: str, tmp_path: Path) -> None:
    file, whole = tmp_path / PIXELS, table(detectors(0)[1][0])
    write_pixels(file, whole)
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage in ("empty", "text", "cut"):
        file.write_bytes({"empty": b"", "text": b"nothing of the kind", "cut": content[: len(content) // 2]}[damage])
    elif damage == "flipped":
        middle = len(content) // 2
        file.write_bytes(
            content[:middle] + bytes(byte ^ 255 for byte in content[middle : middle + 40]) + content[middle + 40 :]
        )
    elif damage == "array":
        with file.open("wb") as stream:
            np.save(stream, whole.normal)
    else:
        arrays = {name: np.array(value) for name, value in whole._asdict().items()}
        arrays.pop("above") if damage == "lacking" else None
        arrays["regions"] = arrays["regions"][: -1 if damage == "short" else None]
        arrays["aurocs"] = arrays["aurocs"][: -1 if damage == "areas" else None]
        arrays["normal"] = arrays["normal"][: -1 if damage == "normal" else None]
        arrays["aurocs"] = arrays["aurocs"].astype(object if damage == "pickled" else np.float64)  # could run any code
        arrays["paths"] = np.append(arrays["paths"], "x") if damage == "long" else arrays["paths"]
        np.savez(file, allow_pickle=damage == "pickled", **arrays)
    with pytest.raises(UserError, match="ccd test --ckpt_path") as caught:
        read_pixels(tmp_path)
    reason = "not found; older versions did not write it" if damage == "missing" else "cannot be read ("
    assert str(caught.value).startswith(f"{file}: {reason}")


def resampled(rows: list[list[PixelRecord]], images: list[ImageRecord], draws: list[list[int]]) -> dict[str, Floats]:
    found = [exact([images[i] for i in chosen], [[own[i] for i in chosen] for own in rows]) for chosen in draws]
    return {name: np.array([one[name] for one in found]) for name in NAMES}


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_are_those_of_resampling_the_images_themselves(grouped: bool) -> None:
    images, rows = detectors(1)
    members = [[index] for index in range(30)]
    if grouped:
        members = [list(range(start, start + 2)) for start in range(0, 30, 2)]
        images = [image._replace(group=f"patient {index // 2}") for index, image in enumerate(images)]
    normal, abnormal = members[: len(members) // 3], members[len(members) // 3 :]
    found = paired_pixels(images, table(rows[0]), table(rows[1]), expected := exact(images, rows))
    rng = np.random.default_rng(0)
    draws = [
        [i for part in (normal, abnormal) for place in rng.integers(0, len(part), len(part)) for i in part[place]]
        for _ in range(200)
    ]
    for name, values in resampled(rows, images, draws).items():
        value, low, high = found[name]
        assert value == expected[name]
        assert value - low == pytest.approx(high - value)
        assert (high - low) / (2 * 1.96) == pytest.approx(values.std(), rel=0.2)  # 200 draws know it to a tenth


def test_resamples_are_shared_by_both_detectors() -> None:
    images, rows = detectors(2)
    same = paired_pixels(images, table(rows[0]), table(rows[0]), dict.fromkeys(PIXEL_METRICS, 0.0))
    assert set(same.values()) == {(0.0, 0.0, 0.0)}
    one, other = table(rows[0]), table(rows[1])
    difference = exact(images, rows)
    forward = paired_pixels(images, one, other, difference, 200)
    backward = paired_pixels(images, other, one, {name: -value for name, value in difference.items()}, 200)
    for name, (value, low, high) in forward.items():
        assert backward[name] == pytest.approx((-value, -high, -low))


def test_resamples_without_abnormal_pixels_do_not_count() -> None:
    images, rows = detectors(3, 6)
    empty = torch.zeros(20, 20, dtype=torch.bool)
    for own in rows:  # four abnormal images, three of them with empty masks: a third of the resamples have none else
        own[2:5] = [record_pixels(f"{i:02}.png", torch.rand(20, 20), empty, 0.5) for i in range(2, 5)]
    found = paired_pixels(images, table(rows[0]), table(rows[1]), exact(images, rows))
    assert np.isfinite(list(found.values())).all()
    assert all(low < high for _, low, high in found.values())
