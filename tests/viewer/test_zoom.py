"""Zoom and pan of the large view, by wheel, mouse, keys and buttons."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccd_lightning.viewer.pictures import LARGEST
from tests.viewer.browser import BROWSER, Box, Browser, box, frame

pytestmark = BROWSER
LAYERS = ("image", "map", "lines", "mask")
CLOSE = 1.5  # px: places are rounded to whole pixels


def level(page: Browser) -> str:
    return str(page.run("document.getElementById('zoom-level').textContent"))


def wait_for_layers(page: Browser) -> None:
    page.wait("notes.textContent !== 'Loading' && document.getElementById('image').naturalWidth")
    frame(page)


def open_image(page: Browser) -> Box:
    """Opens the image of the second highest score, which has a mask; returns the box of all of it."""
    page.press("j")
    page.press("Enter")
    wait_for_layers(page)
    return box(page, "image")


def click(page: Browser, name: str) -> None:
    page.run(f"document.getElementById('{name}').click()")
    frame(page)


def test_an_image_is_first_shown_whole(page: Browser) -> None:
    whole, stage = open_image(page), box(page, "stage")
    assert whole.width / whole.height == pytest.approx(48 / 32, abs=0.01)
    assert max(whole.width / stage.width, whole.height / stage.height) == pytest.approx(1, abs=0.005)
    assert np.allclose(whole.middle, stage.middle, atol=CLOSE)
    assert level(page) == f"{round(100 * whole.width / 48):,}%, whole image"
    assert not page.said


@pytest.mark.parametrize("place", [(0.5, 0.5), (0.3, 0.6), (0.65, 0.1)])
def test_the_wheel_enlarges_what_is_under_the_pointer(page: Browser, place: tuple[float, float]) -> None:
    whole = open_image(page)
    pointer = whole.left + place[0] * whole.width, whole.top + place[1] * whole.height
    for _ in range(8):
        page.wheel(pointer, -100)
    image, stage = box(page, "image"), box(page, "stage")
    assert image.width > 4 * whole.width
    assert np.abs(image.part(pointer) - place).max() * image.width < 8 * CLOSE  # eight roundings
    assert image.left <= stage.left
    for name in LAYERS:
        assert box(page, name) == image
    for _ in range(30):
        page.wheel(pointer, 100)
    assert box(page, "image") == whole


@pytest.mark.parametrize(
    ("larger", "smaller", "reset"), [("+", "-", "0"), ("=", "-", "0"), ("zoom-in", "zoom-out", "zoom-fit")]
)
def test_keys_and_buttons_enlarge_around_the_middle(page: Browser, larger: str, smaller: str, reset: str) -> None:
    act: Callable[[str], None] = page.press if len(larger) == 1 else lambda name: click(page, name)
    whole = open_image(page)
    act(larger)
    act(larger)
    image = box(page, "image")
    assert image.width == pytest.approx(1.5**2 * whole.width, abs=CLOSE)
    assert np.allclose(image.middle, whole.middle, atol=CLOSE)
    act(smaller)
    assert box(page, "image").width == pytest.approx(1.5 * whole.width, abs=CLOSE)
    for _ in range(2):
        act(smaller)
    assert box(page, "image") == whole
    act(larger)
    act(reset)
    assert box(page, "image") == whole
    assert level(page).endswith("whole image")


@pytest.mark.parametrize("by_key", [True, False])
def test_the_view_moves_to_the_borders_and_not_beyond(page: Browser, by_key: bool) -> None:
    open_image(page)
    page.press("+")
    page.press("+")
    before, stage = box(page, "image"), box(page, "stage")
    for side in ("left", "right", "up", "down"):
        key = f"Arrow{side.capitalize()}"
        for _ in range(20):
            if by_key:
                page.press(key, shift=True)
            else:
                click(page, f"pan-{side}")
        image = box(page, "image")
        borders = {
            "left": image.left - stage.left,
            "right": image.left + image.width - stage.left - stage.width,
            "up": image.top - stage.top,
            "down": image.top + image.height - stage.top - stage.height,
        }
        assert borders[side] == pytest.approx(0, abs=CLOSE)
        assert image[2:] == before[2:]
    assert page.run("document.getElementById('name').textContent") == "06.png"  # not the next image
    assert box(page, "mask") == image


def test_the_image_is_dragged(page: Browser) -> None:
    whole = open_image(page)
    x, y = whole.middle
    page.drag((x, y), (x - 30, y - 20))
    assert box(page, "image") == whole  # all of it can be seen
    for _ in range(4):
        page.press("+")
    before = box(page, "image")
    page.drag((x, y), (x - 30, y - 20), (x - 70, y + 40))
    image = box(page, "image")
    assert (image.left - before.left, image.top - before.top) == pytest.approx((-70, 40), abs=CLOSE)
    page.mouse("mouseMoved", (x, y))
    assert box(page, "image") == image  # the button is up
    for count in (1, 2):
        page.mouse("mousePressed", (x, y), clickCount=count)
        page.mouse("mouseReleased", (x, y), clickCount=count)
    frame(page)
    assert box(page, "image") == whole
    assert not page.said


@pytest.mark.parametrize("size", [(64, 64), (1024, 1536)])
def test_pixels_are_seen_when_enlarged(page: Browser, tmp_path: Path, size: tuple[int, int]) -> None:
    board = (np.indices(size[::-1]).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "images/06.png")
    open_image(page)
    for key in "olm":
        page.press(key)
    coarse = "getComputedStyle(document.getElementById('image')).imageRendering === 'pixelated'"
    assert page.run(coarse) == (size[0] == 64)
    for _ in range(20):
        page.press("+")
    assert page.run(coarse)
    image, stage = box(page, "image"), box(page, "stage")
    one = image.width / size[0]
    assert one > 63.9
    shown = np.asarray(Image.open(io.BytesIO(page.picture())).convert("L"))
    shown = shown[int(stage.top) : int(stage.top + stage.height), int(stage.left) : int(stage.left + stage.width)]
    assert set(np.unique(shown)) == {0, 255}
    edges = np.flatnonzero(np.diff(shown[5].astype(int)))
    assert np.abs(np.diff(edges) - one).max() <= 1


def test_images_that_were_reduced_say_so(page: Browser, tmp_path: Path) -> None:
    Image.new("RGB", (2 * LARGEST, LARGEST)).save(tmp_path / "images/06.png")
    whole = open_image(page)
    percent = 100 * whole.width / (2 * LARGEST)
    assert level(page) == f"{round(percent)}%, whole image, reduced to {LARGEST} px"


def test_the_zoom_outlives_layers_thresholds_and_resizing_but_not_the_image(page: Browser) -> None:
    whole = open_image(page)
    for _ in range(3):
        page.press("+")
    page.press("ArrowRight", shift=True)
    before = box(page, "image")
    for key in "omol":
        page.press(key)
    page.run("exact.value = 1; exact.dispatchEvent(new Event('input'))")
    frame(page)
    assert box(page, "image") == before
    page.resize(1000, 700)
    frame(page)
    image, stage = box(page, "image"), box(page, "stage")
    assert image.width / image.height == pytest.approx(48 / 32, abs=0.01)
    assert image.left <= stage.left
    assert not level(page).endswith("whole image")
    page.resize(1200, 800)
    page.press("ArrowRight")
    wait_for_layers(page)
    assert box(page, "image") == whole  # another image is shown whole


def test_keys_of_the_zoom_do_nothing_while_a_number_is_typed(page: Browser) -> None:
    whole = open_image(page)
    page.run("exact.focus()")
    for key in "+-0":
        page.press(key)
    page.press("ArrowLeft", shift=True)
    assert box(page, "image") == whole
    page.run("document.getElementById('name').focus(); letters.checked = false")
    page.press("+")
    assert box(page, "image") == whole


def test_buttons_are_named_and_large_enough(page: Browser) -> None:
    open_image(page)
    buttons = page.run(
        "[...document.querySelectorAll('#zoom button')].map((one) =>"
        " [one.ariaLabel || one.textContent, one.offsetWidth, one.offsetHeight, one.ariaDisabled])"
    )
    assert len({name for name, *_ in buttons}) == len(buttons) == 7
    assert min(min(width, height) for _, width, height, _ in buttons) >= 24  # WCAG 2.5.8
    assert [name for name, *_, disabled in buttons if disabled == "false"] == ["Zoom in"]
    page.run("document.getElementById('zoom-out').focus()")
    page.press("Enter")
    assert page.run("document.activeElement.id") == "zoom-out"  # of no use now, but the focus stays
    page.press("+")
    found = page.run("[...document.querySelectorAll('#zoom button')].map((one) => one.ariaDisabled)")
    assert found == ["false"] * 7


@pytest.mark.parametrize("wanted", ["reduce", "no-preference"])
def test_nothing_moves_by_itself(page: Browser, wanted: str) -> None:
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": wanted}])
    open_image(page)
    page.press("+")
    click(page, "pan-left")
    moving = "document.getAnimations().filter(({effect}) => document.getElementById('large').contains(effect.target))"
    assert page.run(f"{moving}.length") == 0
    times = "[...document.querySelectorAll('body *')].map((one) => getComputedStyle(one).transitionDuration)"
    assert set(page.run(times)) <= ({"0s"} if wanted == "reduce" else {"0s", "0.1s"})


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (800, 600)])
def test_the_picture_has_room_in_small_windows(page: Browser, width: int, height: int) -> None:
    page.resize(width, height)
    open_image(page)
    stage, zoom, back = (box(page, name) for name in ("stage", "zoom", "back"))
    assert stage.width * stage.height > 0.25 * width * height
    assert zoom.top + zoom.height <= height
    assert back.top + back.height <= height
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
