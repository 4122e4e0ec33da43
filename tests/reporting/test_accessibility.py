"""Whether report.html can be read by everybody: its structure, and how Chromium shows it."""

from __future__ import annotations

from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from ccd_lightning.reporting.html import FIGURES, write_html
from tests.reporting.contents import content_of, every_metric
from tests.viewer.browser import FAINT, NEEDS_CHROMIUM, chromium

Attributes = dict[str, str | None]


class Elements(HTMLParser):
    """The elements of a page with their attributes, in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.all = list[tuple[str, Attributes]]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))

    def of(self, *tags: str) -> list[Attributes]:
        return [attributes for tag, attributes in self.all if tag in tags]


@pytest.fixture
def report(tmp_path: Path) -> Path:
    figures = [tmp_path / name for name in FIGURES]
    for figure in figures:
        Figure(figsize=(8, 4)).savefig(figure)
    write_html(tmp_path / "report.html", content_of(every_metric(), size_bounds=(0.031, 0.072)), figures)
    return tmp_path / "report.html"


@pytest.fixture
def elements(report: Path) -> Elements:
    return Elements(report.read_text(encoding="utf-8"))


def test_language_title_and_landmarks_are_given(elements: Elements) -> None:
    (page,) = elements.of("html")
    assert page["lang"] == "en"
    for tag in ("title", "header", "main", "h1"):
        assert len(elements.of(tag)) == 1, tag
    assert "user-scalable" not in str(elements.of("meta"))


def test_no_level_of_headings_is_skipped(elements: Elements) -> None:
    levels = [int(tag[1]) for tag, _ in elements.all if tag in ("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_headers_of_tables_say_what_they_are_of(elements: Elements) -> None:
    assert len(elements.of("table")) > 5
    assert {header.get("scope") for header in elements.of("th")} == {"col", "row"}
    rows = [index for index, (tag, _) in enumerate(elements.all) if tag == "tr"]
    assert all(elements.all[index + 1][0] == "th" for index in rows)  # every row begins with its header


def test_figures_have_texts_of_their_own(elements: Elements) -> None:
    texts = [str(image["alt"]) for image in elements.of("img")]
    assert len(set(texts)) == len(FIGURES)
    assert all(len(text) > 30 for text in texts)
    assert not set(texts) & {caption for _, caption in FIGURES.values()}  # which is read as well


@pytest.mark.process
@NEEDS_CHROMIUM
def test_it_is_readable_in_a_browser(report: Path, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as browser:
        for width in (1200, 320):
            browser.open(report.as_uri(), width)
            browser.wait("document.readyState === 'complete' && document.querySelectorAll('summary').length")
            assert not browser.run(FAINT)
            assert browser.run("document.documentElement.scrollWidth <= innerWidth"), width  # WCAG 1.4.10
        browser.press("Tab")
        while browser.run("document.activeElement.className") == "scroll":  # a wide table, to be moved by arrow keys
            browser.press("Tab")
        assert browser.run("document.activeElement.tagName") == "SUMMARY"
        assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        browser.press("Enter")
        assert browser.run("document.querySelector('details').open")
        assert not browser.run(FAINT)
