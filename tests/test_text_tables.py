"""Tables in the terminal: words are never broken, and what does not fit is printed below."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from ccd_lightning.text_tables import print_table

METRIC = "image/sensitivity_at_specificity_95"
VALUE = "0.750 [0.625, 0.875]"
RUNS = [
    "runs/neighbours_folder/version_0",
    "runs/padim_kvasir_wide_resnet50_2/version_11",
    "runs/igd_synthetic_fundus/version_2",
]


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


def printed(width: int | None, head: list[str], rows: list[list[str]], **options: Any) -> list[str]:
    """The lines of a table in a terminal of this width, None for a file."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=width is not None, color_system=None)
    print_table(head, rows, console=console, **options)
    return stream.getvalue().splitlines()


def compared(width: int | None, runs: list[str]) -> list[str]:
    rows = [[METRIC, *[VALUE] * len(runs)], ["pixel/mean_auroc", *["- (no masks)"] * len(runs)]]
    return printed(width, ["metric", *runs], rows, right=range(1, len(runs) + 1), in_blocks=True)


def test_a_table_that_fits_has_one_line_per_row() -> None:
    lines = printed(80, ["name", "size"], [["resnet18", "11"], ["a", "7"]], right=[1])
    assert lines == ["name      size", "resnet18    11", "a            7"]


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_names_and_values_stay_whole_and_every_line_fits(width: int) -> None:
    lines = compared(width, RUNS)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert text.count(VALUE) == text.count("- (no masks)") == 3
    for name in RUNS:  # divided at the ends of its parts only
        assert any(f"{name.rpartition('/')[2]} " in f"{line} " for line in lines)
    blocks = [line for line in lines if line.startswith("metric")]
    assert text.count(METRIC) == text.count("pixel/mean_auroc") == len(blocks)


def test_columns_that_do_not_fit_are_printed_below() -> None:
    lines = compared(80, RUNS)
    assert lines.count("") == 1
    assert f"{METRIC}  {VALUE}  {VALUE}" in [line.replace("   ", "  ") for line in lines]
    below = lines[lines.index("") :]
    assert [line.split()[-1] for line in below if "version" in line] == ["runs/igd_synthetic_fundus/version_2"]


def test_output_that_is_no_terminal_has_one_line_per_row(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(compared(None, RUNS)) == 3
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, compared(None, RUNS))) <= 80


def test_sentences_are_broken_at_spaces() -> None:
    reason = "undefined: fewer than two patients have abnormal images, which the interval needs"
    lines = printed(60, ["metric", "value", "95% interval"], [[METRIC, "-", reason]])
    assert max(map(len, lines)) <= 60
    assert " ".join(line[44:] for line in lines[1:]) == reason


def test_names_are_broken_between_their_parts_if_nothing_else_helps() -> None:
    rows = [["hyper_kvasir", "vit_small_patch14_dinov2", "neighbours folder", "0"]]
    lines = printed(40, ["set", "encoder", "run", "seed"], rows, whole=())
    assert max(map(len, lines)) <= 40
    assert {word for line in lines[1:] for word in line.split()} >= {"kvasir", "dinov2", "neighbours", "folder"}
    assert len(printed(10, ["set", "encoder"], [["kvasir", "untrained"]], whole=())) == 2  # wider than the terminal


def test_brackets_and_colons_are_printed_as_they_are() -> None:
    row = ["image/auroc/[bold]", ":smile: [/] [0.1, 0.2]"]
    assert printed(80, ["metric", "runs/[red]x"], [row])[1].split("  ") == row


def test_wide_characters_are_aligned() -> None:
    lines = printed(80, ["name", "value"], [["大腸", "1"], ["colon", "2"]])
    assert lines[1:] == ["大腸   1", "colon  2"]


def test_a_table_without_rows_is_its_head() -> None:
    assert printed(80, ["metric", "value"], []) == ["metric  value"]
