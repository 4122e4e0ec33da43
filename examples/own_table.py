"""A table of images from a table of one's own, with the columns file, patient and finding.

python examples/own_table.py findings.csv split.csv
ccd fit --config neighbours_folder --data.root split.csv
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path


def write_split(source: Path, target: Path) -> None:
    """Writes the split: patients with a finding and every fifth of the others are tested on.

    Args:
        source: Table with the columns file (relative to this table), patient, and finding (empty for normal images).
        target: Table to write, in the same folder.
    """
    rows = list(csv.DictReader(source.read_text(encoding="utf-8-sig").splitlines()))
    ill = {row["patient"] for row in rows if row["finding"]}
    tested = ill | set(sorted({row["patient"] for row in rows} - ill)[::5])
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "kind", "group"])
        for row in rows:
            split = "test" if row["patient"] in tested else "train"
            writer.writerow([row["file"], split, row["finding"] or "good", row["patient"]])


if __name__ == "__main__":
    write_split(Path(sys.argv[1]), Path(sys.argv[2]))
