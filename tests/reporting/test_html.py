from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from ccd_lightning.metrics.definitions import GROUPS, MEANS, MEASURES
from ccd_lightning.metrics.detection import SUBSET_METRICS
from ccd_lightning.metrics.pixel_means import MEAN_METRICS
from ccd_lightning.metrics.pixel_table import PIXEL_METRICS
from ccd_lightning.metrics.records import Evaluation
from ccd_lightning.reporting.content import Content
from ccd_lightning.reporting.html import FIGURES, HEADLINES, write_html
from tests.reporting.contents import METRICS, NASTY, content_of, every_metric

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A page that was read: whether every element is closed in its place, its text, and what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def read(tmp_path: Path, page: Content, figures: list[Path] | None = None) -> Page:
    file = tmp_path / "report.html"
    write_html(file, page, figures or [])
    return Page(file.read_text(encoding="utf-8"))


@pytest.fixture
def full() -> Evaluation:
    return every_metric()


def test_every_metric_has_a_name_in_plain_words() -> None:
    assert set(METRICS) <= set(MEASURES)
    assert set(HEADLINES) <= set(MEASURES)
    chosen_on_the_test_set = {name for name in METRICS if "_at_" in name or name.endswith("_best")}
    assert {name for name, measure in MEASURES.items() if measure.optimistic} == chosen_on_the_test_set


def test_every_metric_and_interval_is_in_the_page(tmp_path: Path, full: Evaluation) -> None:
    page = read(tmp_path, content_of(full, size_bounds=(0.031, 0.072)))
    for name, value in full.metrics.items():
        assert f" {value:.3f} " in page.text, name
        assert f" {value + 0.2:.3f} to {value + 0.4:.3f} " in page.text, name
    for message in ("small: up to 3.1%", "medium: up to 7.2%", "large: above 7.2%", "polyp (2)", f"{NASTY} (1)"):
        assert message in page.text


def test_means_over_images_have_a_table_of_their_own(tmp_path: Path, full: Evaluation) -> None:
    text = read(tmp_path, content_of(full)).text
    pooled, means = text.split(GROUPS["pixel/"])[1].split("By ")[0].split(GROUPS["pixel/mean_"])
    assert MEANS in means
    for name in PIXEL_METRICS:
        assert (f" {name} " in means) == (name in MEAN_METRICS) != (f" {name} " in pooled)


def test_every_reason_is_in_the_page(tmp_path: Path) -> None:
    names = [*METRICS, *(f"{name}/polyp" for name in SUBSET_METRICS)]
    evaluation = Evaluation(undefined={name: f"reason {index} ." for index, name in enumerate(names)})
    page = read(tmp_path, content_of(evaluation))
    for index in range(len(names)):
        assert f"undefined: reason {index} ." in page.text


def test_metrics_that_nobody_described_are_shown_by_their_names(tmp_path: Path) -> None:
    page = read(tmp_path, content_of(Evaluation({"pretext/new_term": 0.777, "other/thing": 0.888})))
    assert "new_term" in page.text
    assert " 0.777 " in page.text
    assert "other/thing" in page.text
    assert " 0.888 " in page.text


def test_the_page_says_what_was_tested_and_how(tmp_path: Path, full: Evaluation) -> None:
    page = read(tmp_path, content_of(full))
    for message in (
        "runs/one",
        "Model PaDiM",
        "Normal images 4",
        "Abnormal images 3",
        "5b11",
        "Seed 23",
        "above 12.35",
        "95% quantile of the scores of 11 normal images",
        "above 3.25",
        f"PyTorch {torch.__version__}",
        "Tested on CPU",
        "seed_everything: 23",
    ):
        assert message in page.text, message


def test_names_are_escaped(tmp_path: Path, full: Evaluation) -> None:
    plain = read(tmp_path, content_of(full))
    page = read(tmp_path, content_of(full, name=NASTY, root=NASTY, model=NASTY, config=f"x: {NASTY}</pre><script>"))
    assert page.counts == plain.counts  # no name has become an element
    assert page.text.count(NASTY) > plain.text.count(NASTY) + 4


def test_figures_are_inside_and_nothing_is_outside(tmp_path: Path, full: Evaluation) -> None:
    files = [tmp_path / name for name in (*FIGURES, "another.png")]
    for file in files:
        Figure(figsize=(1, 1)).savefig(file)
    page = read(tmp_path, content_of(full), files)
    assert page.counts["img"] == len(files)
    assert len(page.links) == len(files)
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not any(message in text for message in ("http:", "https:", "file:", "url(", "@import", "<script"))


def test_pixel_metrics_of_some_images_say_of_which(tmp_path: Path) -> None:
    evaluation = Evaluation({"pixel/auroc": 0.9})
    message = "Pixel metrics are of 2 of the 3 abnormal images, those with a mask, and of all normal ones."
    for masks, shown in ((2, True), (3, False), (0, False)):
        write_html(tmp_path / "report.html", content_of(evaluation, masks=masks), [])
        text = (tmp_path / "report.html").read_text()
        assert (message in text) == shown
        assert f"{masks} of 3" in text


def test_a_page_without_threshold_and_masks(tmp_path: Path) -> None:
    undefined = {"image/sensitivity": "no threshold", "pixel/auroc": "no masks"}
    evaluation = Evaluation({"image/auroc": 0.875}, {}, undefined)
    page = read(tmp_path, content_of(evaluation, threshold=None, pixel_threshold=None, masks=0, config=""))
    assert "No threshold was set" in page.text
    assert "A pixel is marked" not in page.text
    assert "87.5%" in page.text
    assert "details" not in page.counts
    assert "nan" not in page.text.lower()
    assert "None" not in page.text


def test_headlines_speak_in_percent(tmp_path: Path) -> None:
    evaluation = Evaluation(dict.fromkeys(HEADLINES, 0.875), dict.fromkeys(HEADLINES, (0.5, 0.75)))
    page = read(tmp_path, content_of(evaluation))
    cards = page.text.partition("The test images")[0]
    assert cards.count("87.5%") == cards.count("95% interval 50.0 to 75.0%") == len(HEADLINES)
    assert cards.count("chance: 50%") == 2
    assert "0.5" not in cards


def test_optimistic_metrics_are_named(tmp_path: Path) -> None:
    name = "image/sensitivity_at_specificity_95"
    marked = read(tmp_path, content_of(Evaluation({name: 0.5})))
    assert f"{MEASURES[name].title} †" in marked.text
    assert "†" not in read(tmp_path, content_of(Evaluation({"image/auroc": 0.5}))).text


def test_interrupted_page_leaves_the_old_one(tmp_path: Path, full: Evaluation) -> None:
    read(tmp_path, content_of(full))
    before = (tmp_path / "report.html").read_text(encoding="utf-8")
    with pytest.raises(FileNotFoundError):
        write_html(tmp_path / "report.html", content_of(full), [tmp_path / "missing.png"])
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before


def test_what_a_threshold_of_few_images_is_worth_is_in_the_page(tmp_path: Path, full: Evaluation) -> None:
    message = "The threshold comes from only 11 held-out images"
    assert message in read(tmp_path, content_of(full)).text
    enough = {"quantile": 0.95, "held_out_images": 40, "pixel_quantile": 0.99}
    assert "comes from only" not in read(tmp_path, content_of(full, threshold_rule=enough)).text
    assert "comes from only" not in read(tmp_path, content_of(full, threshold=None)).text
