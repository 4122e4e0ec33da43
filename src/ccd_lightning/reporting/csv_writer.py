"""Tables that are appended to on disk, one per rank, and joined at the end."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from ccd_lightning.writing import naming, open_table


class GrowingTables:
    """CSV files in one folder, each created with its first rows. Appended rows are on disk, whatever happens later.

    Args:
        folder: Folder of the files.
        heads: Column names by file name.
        rank: Rank of this process. Its files have the rank in their names, except on rank 0.
    """

    def __init__(self, folder: Path, heads: Mapping[str, Sequence[str]], rank: int = 0) -> None:
        self.folder = folder
        self.heads = heads
        self.rank = rank
        self._open: dict[str, TextIO] = {}

    def path(self, name: str, rank: int | None = None) -> Path:
        """Returns the path of a rank's file."""
        number = self.rank if rank is None else rank
        return self.folder / (name.replace(".", f".{number}.") if number else name)

    def append(self, name: str, rows: Sequence[Sequence[str]]) -> None:
        """Appends rows in a single write."""
        text = io.StringIO(newline="")
        with naming(self.path(name)):
            if name not in self._open:
                self._open[name] = open_table(self.path(name))
                csv.writer(text).writerow(self.heads[name])
            csv.writer(text).writerows(rows)
            self._open[name].write(text.getvalue())
            self._open[name].flush()

    def close(self) -> None:
        """Closes the files of this rank."""
        for name, table in self._open.items():
            with naming(self.path(name)):
                table.close()

    def join(self, ranks: int) -> None:
        """Appends the other ranks' files to those of rank 0, in order, and removes them. All files must be closed."""
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
