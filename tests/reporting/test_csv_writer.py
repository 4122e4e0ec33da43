"""Tables that grow on disk."""

import csv
from pathlib import Path

from ccd_lightning.reporting.csv_writer import GrowingTables

HEADS = {"a.csv": ["path", "score"], "b.csv": ["path", "reason"]}


def rows(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return list(csv.reader(stream))


def test_rows_are_on_disk_at_once_and_a_file_begins_with_its_first(tmp_path: Path) -> None:
    tables = GrowingTables(tmp_path, HEADS)
    assert list(tmp_path.iterdir()) == []
    odd = ['ü, "x"\n.png', b"\xff.png".decode("utf-8", "surrogateescape")]
    for number, name in enumerate(odd, 1):
        tables.append("a.csv", [[name, "1"]])
        assert rows(tmp_path / "a.csv") == [["path", "score"], *([one, "1"] for one in odd[:number])]
    assert not (tmp_path / "b.csv").exists()
    tables.close()


def test_joined_tables_are_those_of_one_process(tmp_path: Path) -> None:
    for rank in range(3):
        tables = GrowingTables(tmp_path, HEADS, rank)
        tables.append("a.csv", [[f"{rank}.png", "1"], [f"{rank}b.png", "2"]])
        if rank == 2:
            tables.append("b.csv", [["bad.png", "so"]])
        tables.close()
    GrowingTables(tmp_path, HEADS).join(3)
    expected = [[f"{rank}{letter}.png", score] for rank in range(3) for letter, score in (("", "1"), ("b", "2"))]
    assert rows(tmp_path / "a.csv") == [["path", "score"], *expected]
    assert rows(tmp_path / "b.csv") == [["path", "reason"], ["bad.png", "so"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv"]
