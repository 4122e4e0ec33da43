"""Whether the page can be used by everybody: structure, names, focus and reflow."""

from __future__ import annotations

from itertools import pairwise

from tests.viewer.browser import BROWSER, Browser, frame

pytestmark = BROWSER


def names(page: Browser, selector: str) -> list[str]:
    """What a screen reader says of elements, by Chromium's own computation."""
    page.call("Accessibility.enable")
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    nodes = page.call("DOM.querySelectorAll", nodeId=root, selector=selector)["nodeIds"]
    trees = [page.call("Accessibility.getPartialAXTree", nodeId=node, fetchRelatives=False)["nodes"] for node in nodes]
    return [tree[0].get("name", {}).get("value", "") for tree in trees if not tree[0]["ignored"]]


def open_image(page: Browser) -> None:
    page.press("j")
    page.press("Enter")
    page.wait("notes.textContent !== 'Loading' && document.getElementById('mask').naturalWidth")


def test_language_landmarks_and_headings(page: Browser) -> None:
    open_image(page)
    assert page.run("document.documentElement.lang") == "en"
    assert page.run("document.title.length") > 5
    for landmark in ("header", "main", "h1"):
        assert page.run(f"document.querySelectorAll('{landmark}').length") == 1
    levels = page.run(
        "[...document.querySelectorAll('h1, h2, h3, h4')].filter((one) => one.checkVisibility())"
        ".map((one) => Number(one.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_control_has_a_name(page: Browser) -> None:
    open_image(page)
    found = names(page, "input, select, button, [role=group], [role=listbox], section, fieldset")
    assert len(found) > 20
    assert all(found)
    (picture,) = names(page, "#image")
    assert picture == "06.png, detected (true positive)"
    page.press("Escape")
    assert names(page, ".tile.active") == ["06.png, score 4.000, detected (true positive)"]
    assert names(page, ".tile img") == []  # the tile says it


def test_every_control_shows_the_focus(page: Browser) -> None:
    open_image(page)
    seen = list[str]()
    for _ in range(60):
        page.press("Tab")
        place = page.run("document.activeElement.id")
        if place in seen:
            break
        if not place:  # past the last one
            continue
        seen.append(place)
        assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid", place
        assert page.run("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2, place
        assert page.run("document.activeElement.checkVisibility()"), place
    assert {"zoom-in", "zoom-out", "zoom-fit", "pan-left", "pan-right", "pan-up", "pan-down", "opacity"} <= set(seen)
    assert {"sort", "result", "exact", "slider", "back", "previous", "next", "choose", "show-map"} <= set(seen)


def test_nothing_is_cut_off_in_a_narrow_window(page: Browser) -> None:
    """As at 400% in a window of 1280 px (WCAG 1.4.10)."""
    for large in (False, True):
        if large:
            open_image(page)
        page.resize(320, 640)
        frame(page)
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        outside = (
            "[...document.querySelectorAll('button, select, input, h1, h2')].filter((one) => one.checkVisibility())"
            ".filter((one) => one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.id)"
        )
        assert not page.run(outside)
        page.resize(1200, 800)


def test_the_outlines_differ_in_form(page: Browser) -> None:
    """With little red sight cyan looks white: the mask's outline has black borders, in its key as in the image."""
    open_image(page)
    background = "getComputedStyle(document.querySelector('.key{}')).backgroundImage"
    assert "rgb(0, 0, 0)" in page.run(background.format(".truth"))
    assert "rgb(0, 0, 0)" not in page.run(background.format(".line"))
