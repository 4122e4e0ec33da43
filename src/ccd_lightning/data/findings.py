"""Findings about a data set, with levels and topics, and the table of them."""

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
    """One finding.

    Attributes:
        level: An error makes training or testing unsound, a warning may do so, a note says how such files are treated.
        topic: What the finding is about, with the same wording for all findings of a sort.
        path: Path of the file.
        message: What is wrong with the file.
        other: The other file of a pair.
    """

    level: Level
    topic: str
    path: Path
    message: str
    other: Path | None = None


def write_findings(file: Path, findings: Sequence[Finding]) -> None:
    """Writes all findings to a CSV file with the columns level, topic, path, other, message."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as partial, open_table(partial) as stream:
        writer = csv.writer(stream)
        writer.writerow(("level", "topic", "path", "other", "message"))
        for one in findings:
            paths = (path_cell(str(path or "")) for path in (one.path, one.other))
            writer.writerow((one.level, one.topic, *paths, cell(one.message)))


def by_topic(findings: Iterable[Finding]) -> dict[tuple[Level, str], list[Finding]]:
    """Groups findings by level and topic, keeping their order."""
    sorts: dict[tuple[Level, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        sorts[finding.level, finding.topic].append(finding)
    return sorts


def without_name(error: UserError, path: Path) -> str:
    """Returns an error message without the file name at its start."""
    return str(error).removeprefix(f"{path}: ")
