"""What is found in a data set: levels and topics, and the table of them."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from ccd_lightning.errors import UserError
from ccd_lightning.writing import atomic_write, cell, open_table, path_cell

Level = Literal["error", "warning", "note"]


class Finding(NamedTuple):
    """One thing found.

    Attributes:
        level: An error makes training or its test unsound, a warning may; a note says what is done with such files.
        topic: What it is about, the same words for all of a sort.
        path: The file.
        message: What is wrong with it.
        other: The other file of a pair.
    """

    level: Level
    topic: str
    path: Path
    message: str
    other: Path | None = None


def write_findings(file: Path, findings: Sequence[Finding]) -> None:
    """Writes a table of all findings: level, topic, path, other, told."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as partial, open_table(partial) as stream:
        writer = csv.writer(stream)
        writer.writerow(("level", "topic", "path", "other", "told"))
        for one in findings:
            paths = (path_cell(str(path or "")) for path in (one.path, one.other))
            writer.writerow((one.level, one.topic, *paths, cell(one.message)))


def by_topic(findings: Iterable[Finding]) -> dict[tuple[Level, str], list[Finding]]:
    """The findings of each sort, in order."""
    sorts: dict[tuple[Level, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        sorts[finding.level, finding.topic].append(finding)
    return sorts


def without_name(error: UserError, path: Path) -> str:
    """What an error says of a file, without the file's name before it."""
    return str(error).removeprefix(f"{path}: ")
