"""Tables that grow on disk while the work goes on, one a rank, and are joined at its end."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from ccd_lightning.writing import naming, open_table


class GrowingTables:
    """CSV files of one folder, each begun with its first rows; what was appended survives whatever comes after.

    Args:
        folder: Where they are.
        heads: The files' names and the names of their columns.
        rank: This process, whose files carry its number unless it is the first.
    """

    def __init__(self, folder: Path, heads: Mapping[str, Sequence[str]], rank: int = 0) -> None:
        self.folder = folder
        self.heads = heads
        self.rank = rank
        self._open: dict[str, TextIO] = {}

    def path(self, name: str, rank: int | None = None) -> Path:
        """A rank's file."""
        number = self.rank if rank is None else rank
        return self.folder / (name.replace(".", f".{number}.") if number else name)

    def append(self, name: str, rows: Sequence[Sequence[str]]) -> None:
        """Writes rows in one piece."""
        text = io.StringIO(newline="")
        with naming(self.path(name)):
            if name not in self._open:
                self._open[name] = open_table(self.path(name))
                csv.writer(text).writerow(self.heads[name])
            csv.writer(text).writerows(rows)
            self._open[name].write(text.getvalue())
            self._open[name].flush()

    def close(self) -> None:
        """Closes this rank's files."""
        for name, table in self._open.items():
            with naming(self.path(name)):
                table.close()

    def join(self, ranks: int) -> None:
        """Appends the other ranks' files to the first one's, in order, and removes them; all are closed."""
        for name in self.heads:
            whole = self.path(name, 0)
            for part in (self.path(name, rank) for rank in range(1, ranks)):
                if not part.exists():
                    continue
                with naming(whole), open_table(part, "r") as source, open_table(whole, "a") as table:
                    head = source.readline()
                    table.write(head * (table.tell() == 0))
                    shutil.copyfileobj(source, table)
                part.unlink()
