"""The page in headless Chromium; without one, its scripts are not tried."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from ccd_lightning.viewer.exports import chosen_rows
from ccd_lightning.viewer.server import ViewServer
from tests.viewer.browser import BROWSER, FAINT, Browser, frame
from tests.viewer.made_up import LABELS, SCORES, THRESHOLD, leave, serving

pytestmark = BROWSER
PLACES = "[...document.querySelectorAll('.tile')].sort((a, b) => a.dataset.place - b.dataset.place)"
EVIL = '<img src=x onerror="document.title=1">'


def shown(page: Browser) -> list[int]:
    """The images in the grid, in its order."""
    found: list[int] = page.run(f"{PLACES}.map((tile) => Number(tile.dataset.index))")
    return found


def choose_option(page: Browser, control: str, value: str) -> None:
    page.run(f"{control}.value = {json.dumps(value)}; {control}.dispatchEvent(new Event('change'))")
    frame(page)


def set_threshold(page: Browser, value: float) -> None:
    page.run(f"exact.value = {value}; exact.dispatchEvent(new Event('input'))")
    frame(page)


def counts(page: Browser) -> list[str]:
    found: list[str] = page.run("[...document.querySelectorAll('#counts b')].map((one) => one.textContent)")
    return found


def test_order_and_filters(page: Browser) -> None:
    falling = np.argsort(SCORES)[::-1].tolist()
    assert shown(page) == falling
    choose_option(page, "sort", "low")
    assert shown(page) == falling[::-1]
    choose_option(page, "sort", "name")
    assert shown(page) == list(range(8))
    kinds = page.run("[...kind.options].map((one) => one.textContent)")
    assert kinds == ["all", "good (4)", "bleeding (2)", "polyp (2)"]
    choose_option(page, "kind", "=polyp")
    assert shown(page) == [4, 5]
    choose_option(page, "kind", "")
    for result, expected in {"tp": [5, 6, 7], "fn": [4], "fp": [3], "tn": [0, 1, 2]}.items():
        choose_option(page, "result", result)
        assert shown(page) == expected
    set_threshold(page, 1.25)
    assert shown(page) == [0]
    assert page.run("document.getElementById('count').textContent") == "1 of 8 images"
    assert not page.said


@pytest.mark.parametrize("threshold", [THRESHOLD, 0.0, 1.0, 3.5, 5.0])
def test_the_confusion_follows_from_the_threshold(page: Browser, threshold: float) -> None:
    set_threshold(page, threshold)
    above, abnormal = np.array(SCORES) > threshold, np.array(LABELS) == 1
    cells = [(above & abnormal).sum(), (~above & abnormal).sum(), (above & ~abnormal).sum(), (~above & ~abnormal).sum()]
    shares = [f"{100 * (above & abnormal).sum() / 4:.1f}%", f"{100 * (~above & ~abnormal).sum() / 4:.1f}%"]
    assert counts(page) == [*map(str, cells), *shares]
    assert "optimistic" in page.run("warning.textContent")
    page.run("reset.click()")
    frame(page)
    assert counts(page) == ["3", "1", "1", "3", "75.0%", "75.0%"]
    assert page.run("reset.disabled")


def test_everything_is_reached_by_keys(page: Browser) -> None:
    at = "document.querySelector('.tile.active').dataset.index"
    for key, place in {"ArrowRight": 1, "j": 2, "k": 1, "End": 7, "Home": 0, "ArrowLeft": 0}.items():
        page.press(key)
        assert int(page.run(at)) == np.argsort(SCORES)[::-1][place]
    assert page.run("grid.getAttribute('aria-activedescendant') === document.querySelector('.tile.active').id")
    page.press("x")
    assert page.run("document.querySelector('.tile.active').getAttribute('aria-selected')") == "true"
    page.press("Enter")
    assert page.run("document.getElementById('name').textContent") == "07.png"
    page.wait("document.getElementById('map').naturalWidth && notes.textContent !== 'Loading'")
    assert page.run("notes.textContent") == "No mask for this image."
    assert page.run("choose.checked")
    page.press("ArrowRight")
    page.wait("document.getElementById('mask').naturalWidth")
    assert page.run("document.getElementById('name').textContent") == "06.png"
    seen = "getComputedStyle(document.getElementById('map')).visibility"
    for expected in ("hidden", "visible"):
        page.press("o")
        assert page.run(seen) == expected
    page.run("opacity.value = 80; opacity.dispatchEvent(new Event('input'))")
    assert page.run("getComputedStyle(document.getElementById('map')).opacity") == "0.8"
    page.press("?")
    assert page.run("keys.open")
    page.press("Escape")
    page.run("keys.close()")
    page.press("Escape")
    assert page.run("large.hidden && document.activeElement.id") == "grid"
    page.press("f")
    assert page.run("document.activeElement.id") == "kind"
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Escape")
    page.run("letters.checked = false")
    page.press("f")
    assert page.run("document.activeElement.id") == "grid"
    assert not page.said


def test_a_missing_file_is_reported_in_a_sentence(page: Browser, tmp_path: Path) -> None:
    (tmp_path / "images/07.png").unlink()
    page.press("Enter")
    message = page.wait("notes.textContent !== 'Loading' && notes.textContent")
    assert "images/07.png" in message
    page.press("j")
    page.wait("document.getElementById('image').naturalWidth")


def test_the_chosen_ones_are_what_is_exported(page: Browser, server: ViewServer) -> None:
    page.run("var saved; const real = URL.createObjectURL;")
    page.run("URL.createObjectURL = (blob) => { saved = blob; return real(blob); }; 0")
    choose_option(page, "result", "fn")
    page.run("document.getElementById('choose-all').click()")
    choose_option(page, "result", "")
    page.press("Home")
    page.press("x")
    page.run("document.getElementById('table').click()")
    page.wait("Boolean(saved)")
    rows = list(csv.DictReader(io.StringIO(page.run("saved.text()"))))
    assert [row["path"] for row in rows] == ["images/04.png", "images/07.png"]
    assert {row["threshold"] for row in rows} == {str(THRESHOLD)}


def test_choices_are_packed_as_the_server_reads_them(page: Browser) -> None:
    for count in (1, 8, 9, 1000):
        wanted = sorted({0, count // 2, count - 1})
        text = page.run(f"import('./model.js').then((model) => model.pack(new Set({wanted}), {count}))")
        assert chosen_rows(text, count) == wanted


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read(browser: Browser, server: ViewServer, dark: bool) -> None:
    browser.open(server.url, dark=dark)
    browser.wait("document.querySelectorAll('.tile').length")
    assert browser.run("matchMedia('(prefers-color-scheme: dark)').matches") == dark
    assert browser.run("getComputedStyle(document.body).backgroundColor") == (
        "rgb(18, 22, 28)" if dark else "rgb(255, 255, 255)"
    )
    assert not browser.run(FAINT)
    browser.press("Enter")
    browser.press("?")
    assert not browser.run(FAINT)
    nameless = (
        "[...document.querySelectorAll('input, select, button')]"
        ".filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim()))"
    )
    assert not browser.run(f"{nameless}.map((one) => one.id)")


def test_names_are_never_interpreted_as_html(browser: Browser, run: Path) -> None:
    leave(run, [[f"images/{EVIL}/{index}.png", index, f"{index}.5", "", "", EVIL, EVIL, ""] for index in (0, 1)])
    browser.said.clear()
    with serving(run) as server:
        browser.open(server.url)
        browser.wait("document.querySelectorAll('.tile').length")
        browser.press("Enter")
        browser.wait("notes.textContent !== 'Loading'")
        assert browser.run("document.getElementById('facts').textContent").count(EVIL) == 2
        assert not browser.run("document.querySelectorAll('[onerror]').length")
        assert "ccd view" in browser.run("document.title")


def test_ten_thousand_images_are_not_in_the_document(browser: Browser, run: Path) -> None:
    rows = [
        [f"images/{index:05}.png", index % 2, f"{index / 7}", "", "", "", f"k{index % 3}", ""]
        for index in range(10_000)
    ]
    leave(run, rows)
    with serving(run) as server:
        browser.open(server.url)
        browser.wait("document.querySelectorAll('.tile').length")
        for key, first in {"End": 0, "Home": 9999}.items():
            browser.press(key)
            frame(browser)
            assert browser.run("document.querySelectorAll('#grid *').length") < 500
            assert browser.run("Number(document.querySelector('.tile.active').dataset.index)") == first
            assert browser.run(
                "(({top, bottom}, box) => top >= box.top && bottom <= box.bottom)"
                "(document.querySelector('.tile.active').getBoundingClientRect(), grid.getBoundingClientRect())"
            )
        set_threshold(browser, 500.0)
        assert counts(browser)[0] == str(sum(1 for index in range(1, 10_000, 2) if index / 7 > 500))
