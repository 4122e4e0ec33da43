"""Polygons, run lengths and boxes of annotation tools become masks at the image's size."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from ccd_lightning.data import shapes
from ccd_lightning.data.annotations import looks_like_labels, read_annotation, read_coco
from ccd_lightning.data.shapes import fill_box, fill_polygon
from ccd_lightning.errors import UserError

SIZE = (40, 30)
IMAGE = Path("/data/test/polyp/a.png")


def coco(path: Path, *regions: dict[str, Any], **image: Any) -> Path:
    described = {"id": 7, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]} | image
    content = {
        "images": [{"id": 3, "file_name": "other.png"}, described],
        "annotations": [{"id": number, "image_id": 7} | region for number, region in enumerate(regions)],
        "categories": [{"id": 1, "name": "polyp"}],
    }
    path.write_text(json.dumps(content))
    return path


def drawn(corners: Any, shape: tuple[int, int] = (30, 40)) -> Any:
    mask = np.zeros(shape, np.bool_)
    fill_polygon(mask, np.asarray(corners, np.float64))
    return mask


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_a_polygon_holds_the_pixels_whose_centres_are_inside(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "CROSSINGS", chunk)
    rng = np.random.default_rng(0)
    centres = np.stack(np.meshgrid(np.arange(40) + 0.5, np.arange(30) + 0.5), axis=-1).reshape(-1, 2)
    for _ in range(50):
        angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 20)))  # no edge crosses another one
        corners = rng.uniform(-5, 45, 2) + rng.uniform(3, 25, (len(angle), 1)) * np.stack(
            [np.cos(angle), np.sin(angle)], axis=1
        )
        inside = Outline(corners, closed=False).contains_points(centres).reshape(30, 40)
        if inside.any():
            assert np.array_equal(drawn(corners), inside)


def test_a_polygon_with_whole_corners_holds_what_a_box_does() -> None:
    mask = drawn([(3, 2), (9, 2), (9, 6), (3, 6)])
    box = np.zeros_like(mask)
    fill_box(box, 3, 2, 9, 6)
    assert np.array_equal(mask, box)
    assert box.sum() == 6 * 4
    assert box[2:6, 3:9].all()


def test_what_is_smaller_than_a_pixel_keeps_one() -> None:
    for mask in (drawn([(3.6, 2.6), (3.9, 2.6), (3.9, 2.9)]), np.zeros((30, 40), np.bool_)):
        if not mask.any():
            fill_box(mask, 3.6, 2.6, 3.9, 2.9)
        assert np.argwhere(mask).tolist() == [[2, 3]]
    assert not drawn([(50, 50), (60, 50), (60, 60)]).any()  # beyond the image


def test_coco_joins_polygons_run_lengths_and_boxes(tmp_path: Path) -> None:
    expected = np.zeros((30, 40), np.bool_)
    expected[2:6, 3:9] = expected[10:12, 20:25] = expected[20:22, 1:3] = expected[0, 39] = True
    runs = np.zeros((30, 40), np.bool_)
    runs[20:22, 1:3] = True
    changes = np.flatnonzero(np.diff(runs.ravel(order="F"), prepend=False))
    counts = np.diff([0, *changes, runs.size]).tolist()
    file = coco(
        tmp_path / "instances.json",
        {"segmentation": [[3, 2, 9, 2, 9, 6, 3, 6], [39, 0, 40, 0, 40, 1, 39, 1]], "bbox": [0, 0, 40, 30]},
        {"segmentation": [], "bbox": [20, 10, 5, 2]},
        {"segmentation": {"counts": counts, "size": [30, 40]}, "iscrowd": 1},
    )
    assert np.array_equal(read_annotation(file, IMAGE, SIZE), expected)
    assert not read_annotation(file, Path("other.png"), (8, 8)).any()  # named, but nothing is marked


def packed(counts: list[int]) -> str:
    """Run lengths as pycocotools packs them (rleToString in maskApi.c)."""
    text = ""
    for index, count in enumerate(counts):
        value = count - (counts[index - 2] if index > 2 else 0)
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            text += chr((bits | 0x20 if more else bits) + 48)
    return text


def test_coco_unpacks_run_lengths(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for density in (0.01, 0.5, 0.99):
        expected = rng.random((300, 200)) < density
        changes = np.flatnonzero(np.diff(expected.ravel(order="F"), prepend=False))
        counts = np.diff([0, *changes, expected.size]).tolist()
        region = {"segmentation": {"counts": packed(counts), "size": [300, 200]}}
        file = coco(tmp_path / f"{density}.json", region, width=200, height=300)
        assert np.array_equal(read_annotation(file, IMAGE, (200, 300)), expected)


def test_images_are_found_by_path_then_by_name(tmp_path: Path) -> None:
    def found(*names: str) -> str | None:
        content = {"images": [{"id": n, "file_name": name} for n, name in enumerate(names)], "annotations": []}
        (file := tmp_path / f"{abs(hash(names))}.json").write_text(json.dumps(content))
        annotations = read_coco(file)
        assert annotations
        return annotations.find(IMAGE)

    assert found("a.png", "b.png") == "a.png"
    assert found("flat/a.png", "polyp/a.png") == "polyp/a.png"
    assert found("test\\polyp\\a.png", "polyp/b.png") == "test/polyp/a.png"
    assert found("a.png", "polyp/a.png") == "polyp/a.png"
    assert found("elsewhere/a.png") == "elsewhere/a.png"
    assert found("b.png") is None
    with pytest.raises(UserError, match=r"x/a\.png and y/a\.png are both called a\.png"):
        found("x/a.png", "y/a.png")
    with pytest.raises(UserError, match=r"two images have the file_name polyp/a\.png"):
        found("polyp/a.png", "b.png", "polyp\\a.png")


@pytest.mark.parametrize(
    ("region", "image", "message"),
    [
        ({"segmentation": [[1, 2, 3, 4]]}, {}, "annotation 0 of a.png cannot be drawn .*4 numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, {}, "no.* finite number"),
        ({"segmentation": {"counts": [5, -1, 1196], "size": [30, 40]}}, {}, "do not add up"),
        ({"segmentation": {"counts": [1 << 70], "size": [30, 40]}}, {}, "cannot be drawn"),
        ({"segmentation": {"counts": "\x7f", "size": [30, 40]}}, {}, "cannot be unpacked"),
        ({"segmentation": {"counts": [1200], "size": [40, 30]}}, {}, "run lengths of 30 x 40"),
        ({"bbox": [1, 2, -3, 4]}, {}, "negative size"),
        ({"bbox": [1, 2, 3]}, {}, "cannot be drawn"),
        ({}, {}, "cannot be drawn .*bbox"),
        ({"image_id": 8}, {}, "not a valid COCO file"),
        ({"bbox": [1, 2, 3, 4]}, {"width": 41}, r"a\.png has 41 x 30 pixels there, but .*a\.png has 40 x 30"),
        ({"bbox": [1, 2, 3, 4]}, {"file_name": "b.png"}, r"a\.png is not among its images"),
    ],
)
def test_what_is_wrong_with_a_coco_file_is_named(
    region: dict[str, Any], image: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = coco(tmp_path / "instances.json", region, **image)
    with pytest.raises(UserError, match=rf"(?s)instances\.json: .*{message}"):
        read_annotation(file, IMAGE, SIZE)


def test_other_json_is_none_of_coco(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"train": []}')
    assert read_coco(tmp_path / "a.json") is None
    (tmp_path / "b.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"b\.json: cannot be read as JSON"):
        read_coco(tmp_path / "b.json")


def test_yolo_boxes_and_polygons_are_shares_of_the_image(tmp_path: Path) -> None:
    expected = np.zeros((30, 40), np.bool_)
    expected[6:12, 8:16] = True  # centre at 12 of 40 and 9 of 30, 8 x 6
    expected[15:30, 20:40] = True
    (file := tmp_path / "a.txt").write_text("0 0.3 0.3 0.2 0.2\n\n1 0.5 0.5 1 0.5 1 1 0.5 1\n")
    assert np.array_equal(read_annotation(file, IMAGE, SIZE), expected)
    (empty := tmp_path / "b.txt").write_text("")
    assert not read_annotation(empty, IMAGE, SIZE).any()
    assert looks_like_labels(file)
    assert looks_like_labels(empty)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.3 0.3 0.2 0.2\n0 12 13 5 6", "line 2: a number is not between 0 and 1"),
        ("0 0.1 0.1 0.2 0.2 0.3", "line 1: a polygon of 5 numbers"),
        ("0 0.1 0.1 0.2 x", "line 1: could not convert"),
        ("0 0.1 0.1 0.2 nan", "line 1: a coordinate that is not a finite number"),
    ],
)
def test_what_is_wrong_with_a_label_is_named(text: str, message: str, tmp_path: Path) -> None:
    (file := tmp_path / "a.txt").write_text(text)
    with pytest.raises(UserError, match=rf"a\.txt, {message}"):
        read_annotation(file, IMAGE, SIZE)


def test_other_texts_are_no_labels(tmp_path: Path) -> None:
    for text in ("1", "A polyp of five millimetres.", "0 0 0"):
        (file := tmp_path / "a.txt").write_text(text)
        assert not looks_like_labels(file)
