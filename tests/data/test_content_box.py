"""The content of a frame with a dark margin is found to the pixel, whatever is written in the margin."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageFont

from ccd_lightning.data.content_box import content_box
from ccd_lightning.data.placement import Box


def frame(size: tuple[int, int], box: Box, shape: str = "rectangle", margin: int = 4, seed: int = 0) -> Image.Image:
    """A textured part of a frame, of a shape within a box, in a noisy dark margin."""
    rng = np.random.default_rng(seed)
    width, height = size
    dark = rng.integers(0, margin + 1, (height, width, 3)).astype(np.uint8)
    coarse = Image.fromarray(rng.integers(60, 200, (9, 9, 3)).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    inside = Image.new("L", size)
    left, top, right, bottom = box
    getattr(ImageDraw.Draw(inside), shape)((left, top, right - 1, bottom - 1), fill=255)
    return Image.composite(coarse, Image.fromarray(dark), inside)


def write(image: Image.Image, corner: tuple[int, int], size: int, text: str = "ID 0042\n12:30:59\nPhysician") -> None:
    ImageDraw.Draw(image).text(corner, text, "white", font=ImageFont.load_default(size))


def off(found: Box, expected: Box) -> int:
    return int(np.abs(np.array(found) - expected).max())


FRAMES = [
    ((1440, 1080), (380, 30, 1400, 1050)),  # an endoscope's frame, text to the left
    ((720, 576), (160, 20, 700, 560)),
    ((300, 200), (70, 10, 290, 190)),
]


@pytest.mark.parametrize(("size", "box"), FRAMES)
@pytest.mark.parametrize("shape", ["rectangle", "ellipse"])
def test_content_is_found_beside_text(size: tuple[int, int], box: Box, shape: str) -> None:
    image = frame(size, box, shape)
    limit = 1 if shape == "rectangle" else max(2, size[0] // 100)  # the first rows of a disc hold few pixels
    assert off(content_box(image), box) <= limit
    write(image, (size[0] // 60, size[1] // 10), size[1] // 30)
    assert off(content_box(image), box) <= limit
    write(image, (box[0] + 20, box[1] + 20), size[1] // 25)  # within the content
    assert off(content_box(image), box) <= limit


def test_noise_of_jpeg_is_no_content() -> None:
    image, buffer = frame((720, 576), (160, 20, 700, 560)), io.BytesIO()
    write(image, (10, 60), 20)
    image.save(buffer, "JPEG", quality=60)
    assert off(content_box(Image.open(buffer)), (160, 20, 700, 560)) <= 4


def test_a_picture_in_the_margin_is_left_out() -> None:
    image = frame((720, 576), (160, 20, 700, 560))
    image.paste((0, 200, 0), (10, 420, 130, 560))  # the scope guide of some recordings
    assert off(content_box(image), (160, 20, 700, 560)) <= 1


def test_dark_parts_inside_belong_to_the_content() -> None:
    image = frame((720, 576), (160, 20, 700, 560))
    image.paste((0, 0, 0), (300, 200, 500, 400))  # the lumen
    assert off(content_box(image), (160, 20, 700, 560)) <= 1


@pytest.mark.parametrize(
    "image",
    [
        frame((200, 150), (0, 0, 200, 150)),
        Image.new("RGB", (64, 64)),
        Image.new("L", (64, 64), 255),
        Image.new("RGB", (1, 1)),
        Image.new("RGB", (3, 500), (90, 90, 90)),
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 60, 3)).astype(np.uint8)),
    ],
    ids=["no margin", "black", "white", "a pixel", "a line", "noise"],
)
def test_without_a_dark_margin_all_is_content(image: Image.Image) -> None:
    assert content_box(image) == (0, 0, *image.size)


def test_content_that_reaches_the_edges_is_kept() -> None:
    image = frame((720, 576), (100, 0, 620, 576))
    assert off(content_box(image), (100, 0, 620, 576)) <= 1


def greys(low: int, high: int, shape: tuple[int, int] = (400, 600)) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(low, high, shape).astype(np.uint8)


@pytest.mark.parametrize("shape", ["rectangle", "ellipse"])
@pytest.mark.parametrize("second", [(420, 60, 580, 300), (420, 120, 500, 200)], ids=["as large", "smaller"])
def test_all_large_parts_belong_to_the_content(shape: str, second: Box) -> None:
    image = Image.fromarray(greys(0, 5))
    for box in ((40, 40, 220, 320), second):  # two legs, or both fundi in one picture
        image.paste(frame(image.size, box, shape).convert("L").crop(box), box[:2])
    assert off(content_box(image), (40, 40, second[2], 320)) <= 8 * (shape == "ellipse")


@pytest.mark.parametrize("dim", [(20, 30), (10, 20), (12, 16), (0, 16)])
@pytest.mark.parametrize("lesion", [None, 120, 250])
def test_a_dim_frame_without_a_margin_is_all_content(dim: tuple[int, int], lesion: int | None) -> None:
    pixels = greys(*dim)
    if lesion:
        pixels[100:250, 200:350] = lesion
    assert content_box(Image.fromarray(pixels)) == (0, 0, 600, 400)


def test_a_frame_that_darkens_towards_its_corners_is_all_content() -> None:
    down, across = np.mgrid[-200:200, -300:300]
    light = 20 + 90 * np.exp(-((across / 160) ** 2) - (down / 110) ** 2)
    assert content_box(Image.fromarray(light.astype(np.uint8))) == (0, 0, 600, 400)


def test_a_corner_that_is_not_even_is_no_margin() -> None:
    pixels = greys(60, 200)
    pixels[:, :100], pixels[:8, :100:2], pixels[-8:, :100:2] = 0, 90, 90  # dark on the left, but not its corners
    assert content_box(Image.fromarray(pixels)) == (0, 0, 600, 400)


def test_a_grey_surround_is_no_margin() -> None:
    pixels = greys(90, 95)
    pixels[50:350, 100:500] = greys(160, 220, (300, 400))
    assert content_box(Image.fromarray(pixels)) == (0, 0, 600, 400)


def test_content_in_a_margin_that_is_not_black_is_found() -> None:
    pixels = greys(16, 22)
    pixels[50:350, 100:500] = greys(60, 200, (300, 400))
    assert off(content_box(Image.fromarray(pixels)), (100, 50, 500, 350)) <= 1


@pytest.mark.parametrize("side", range(4))
def test_a_margin_along_one_side_is_enough(side: int) -> None:
    pixels = greys(60, 200, (400, 400))
    pixels[:, :100] = greys(0, 5, (400, 100))
    found = content_box(Image.fromarray(np.rot90(pixels, side)))
    assert off(found, [(100, 0, 400, 400), (0, 0, 400, 300), (0, 0, 300, 400), (0, 100, 400, 400)][side]) <= 1
