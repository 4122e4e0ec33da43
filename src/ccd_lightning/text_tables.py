"""Tables in the terminal, in which no word is broken."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

GAP = "  "
BREAKS = (  # where a text may be broken, the best place first
    re.compile(r"(?<= )(?!\[)(?![^\[]*\])"),  # at a space, but not between a value and its interval, nor inside that
    re.compile(r"(?<=/)"),
    re.compile(r"(?<=\w[_.-])(?=[^\W\d])"),
)
LEVELS = ((0, 0), (2, 1), (3, 1), (3, 3))  # how many of these are used in heads and in cells, as space gets scarce
LAST = len(LEVELS) - 1


@dataclass(frozen=True)
class _Column:
    """A column.

    Attributes:
        head: Its title.
        cells: Its texts.
        right: Whether they are aligned to the right.
        whole: Whether its cells are never broken.
    """

    head: str
    cells: Sequence[str]
    right: bool
    whole: bool

    def width(self, level: int) -> int:
        """Returns the smallest width in which its texts are broken only where the level allows it."""
        of_heads, of_cells = LEVELS[level]
        cells = (_longest(cell, 0 if self.whole else of_cells) for cell in self.cells)
        return max(_longest(self.head, of_heads), *cells, 0)


def print_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Collection[int] = (),
    whole: Collection[int] = (0,),
    in_blocks: bool = False,
    console: Console | None = None,
) -> None:
    """Prints a table that fits the terminal.

    Texts are broken at spaces first, then in paths, then between the parts of a name. If that is not enough, the table
    is wider than the terminal. Each row is one line if the output is not a terminal and COLUMNS is not set.

    Args:
        head: Titles of the columns.
        rows: Their texts.
        right: Indices of the columns that are aligned to the right.
        whole: Indices of the columns whose texts are never broken, such as names to copy.
        in_blocks: Whether columns that do not fit are printed below the others, each time with the first column.
        console: Console to print to. None for stdout.
    """
    console = console or Console()
    limited = console.is_terminal or bool(os.environ.get("COLUMNS"))
    width = console.width if limited else None
    texts = list(zip(*rows, strict=True)) or [()] * len(head)
    columns = [
        _Column(title, cells, index in right, index in whole)
        for index, (title, cells) in enumerate(zip(head, texts, strict=True))
    ]
    for number, block in enumerate(_blocks(columns, width) if in_blocks else [columns]):
        if number:
            console.print()
        _print_block(block, width, console)


def _blocks(columns: Sequence[_Column], width: int | None) -> Iterator[list[_Column]]:
    """Divides columns into blocks that fit a width. Each begins with the first column."""
    first, *others = columns
    while others:
        numbers = range(len(others), 1, -1)
        number = next((number for number in numbers if _level([first, *others[:number]], width) < LAST), 1)
        yield [first, *others[:number]]
        others = others[number:]


def _level(columns: Sequence[_Column], width: int | None) -> int:
    """Returns the first level at which the columns fit a width, or the last one."""
    gaps = len(GAP) * (len(columns) - 1)
    levels = range(LAST)
    fits = (
        level for level in levels if width is None or sum(column.width(level) for column in columns) + gaps <= width
    )
    return next(fits, LAST)


def _print_block(columns: Sequence[_Column], width: int | None, console: Console) -> None:
    level = _level(columns, width)
    widths = [column.width(level) for column in columns]
    spare = max((width or 0) - sum(widths) - len(GAP) * (len(columns) - 1), 0)
    for index, column in enumerate(columns):
        more = min(column.width(0) - widths[index], spare // (len(columns) - index))
        widths[index] += more
        spare -= more
    head = [_wrap(column.head, width) for column, width in zip(columns, widths, strict=True)]
    lowest = max(map(len, head))
    _print_row([[""] * (lowest - len(lines)) + lines for lines in head], columns, widths, console, "bold")
    for texts in zip(*(column.cells for column in columns), strict=True):
        lines = [
            [text] if column.whole else _wrap(text, width)
            for text, column, width in zip(texts, columns, widths, strict=True)
        ]
        _print_row(lines, columns, widths, console)


def _print_row(
    texts: Sequence[list[str]], columns: Sequence[_Column], widths: Sequence[int], console: Console, style: str = ""
) -> None:
    """Prints the lines of a row's cells."""
    for number in range(max(map(len, texts))):
        cells = [
            _aligned(lines[number] if number < len(lines) else "", width, column.right)
            for lines, width, column in zip(texts, widths, columns, strict=True)
        ]
        console.print(Text(GAP.join(cells).rstrip(), style), soft_wrap=True)


def _aligned(text: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def _longest(text: str, breaks: int, start: int = 0) -> int:
    """Returns the width of a text's longest part, if it is broken at every place that is allowed."""
    if start == breaks:
        return cell_len(text)
    return max(_longest(part.rstrip(), breaks, start + 1) for part in BREAKS[start].split(text))


def _wrap(text: str, width: int) -> list[str]:
    """Breaks a text into lines, at the best places. A part that is longer than the width is a line of its own."""
    return [line.rstrip() for line in _broken(text, width, 0)]


def _broken(text: str, width: int, start: int) -> list[str]:
    if cell_len(text.rstrip()) <= width or start == len(BREAKS):
        return [text]
    lines: list[str] = []
    for part in BREAKS[start].split(text):
        if lines and cell_len((lines[-1] + part).rstrip()) <= width:
            lines[-1] += part
        else:
            lines += _broken(part, width, start + 1)
    return lines
