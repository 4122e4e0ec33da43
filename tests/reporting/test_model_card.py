from __future__ import annotations

import re
from pathlib import Path

import pytest

from ccd_lightning.metrics.records import Evaluation
from ccd_lightning.reporting.model_card import BEGIN, CARD, END, write_card
from tests.reporting.contents import NASTY, content_of, every_metric


@pytest.fixture
def card(tmp_path: Path) -> Path:
    return tmp_path / CARD


def rows_of(text: str) -> list[list[str]]:
    """The cells of every row of every table."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_every_metric_and_interval_is_in_a_table(card: Path) -> None:
    full = every_metric()
    assert write_card(card, content_of(full, size_bounds=(0.031, 0.072))) == ""
    text = card.read_text(encoding="utf-8")
    cells = [cell for row in rows_of(text) for cell in row]
    for name, value in full.metrics.items():
        ends = f"{value + 0.2:.3f} to {value + 0.4:.3f}"
        assert f"{value:.3f} [{ends}]" in cells or {f"{value:.3f}", ends} <= set(cells), name
    assert "a&lt;b&gt;&amp;\"c' (1)" in cells
    assert ["Normal training images, including those held out", "60"] in rows_of(text)
    for message in ("95% quantile of the scores of 11 normal images", "not a medical device", "above 12.35"):
        assert message in text
    assert text.startswith("---\nlibrary_name: ccd-lightning\n")


def test_tables_hold_whatever_names_there_are(card: Path) -> None:
    name = "a|b `c`\n# d \\ <script>"
    write_card(card, content_of(Evaluation({f"other/{name}": 0.5}), name=name, root=name, config="a: '```'\n"))
    text = card.read_text(encoding="utf-8")
    assert len({len(row) for row in rows_of(text.split("### Others")[1].split("##")[0])}) == 1
    assert "<script>" not in text
    assert "\n# d" not in text
    assert re.search(r"^````yaml\na: '```'\n````$", text, re.MULTILINE)


def test_undefined_metrics_have_their_reasons(card: Path) -> None:
    write_card(card, content_of(Evaluation(undefined={"pixel/auroc": "no masks"})))
    assert ["undefined: no masks", ""] in [row[1:] for row in rows_of(card.read_text())]


def test_text_by_the_owner_is_kept(card: Path) -> None:
    write_card(card, content_of(every_metric(), name="runs/one"))
    card.write_text(f"My words.\n{card.read_text().replace('exclusion criteria', 'nobody')}\nMore.\n")
    assert write_card(card, content_of(every_metric(), name="runs/two")) == ""
    text = card.read_text()
    assert text.startswith("My words.\n")
    assert text.endswith("\nMore.\n")
    assert "nobody" in text
    assert "runs/two" in text
    assert "runs/one" not in text
    assert text.count("## Results") == text.count(BEGIN) == text.count(END) == 1


@pytest.mark.parametrize(
    "own", [b"", b"words", f"{END}\n{BEGIN}".encode(), f"{BEGIN}{BEGIN}{END}".encode(), b"\xff\xfe\x00"]
)
def test_a_card_without_its_marks_is_left_as_it_is(card: Path, own: bytes) -> None:
    card.write_bytes(own)
    message = write_card(card, content_of(every_metric()))
    assert str(card) in message
    assert "not updated" in message
    assert card.read_bytes() == own


def test_kinds_of_any_name_are_escaped(card: Path) -> None:
    write_card(card, content_of(every_metric()))
    assert NASTY not in card.read_text()
