"""Run folders: runs/<name>/<version>/ with config, checkpoints and results.

A run is finished when `run.json` stands in its folder, which `ccd fit` writes last.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ccd_lightning.errors import UserError

ROOT = Path("runs")
RECORD = "run.json"
LATEST = "latest"
CONFIG = "config.yaml"  # as Lightning names it
MANIFEST = "manifest.csv"  # which image was in which split
FIRST = "ccd fit --config configs/ccd_synthetic.yaml"
CHECKPOINTS = "checkpoints"


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """A path to write to, which takes the file's place once all is written: a break leaves the old file."""
    partial = file.with_suffix(".partial")
    yield partial
    partial.replace(file)


def newest_run(root: Path = ROOT) -> Path:
    """The run below a folder that finished last.

    Raises:
        UserError: If there is none.
    """
    records = [path for path in root.glob(f"**/{RECORD}") if path.parent.name != LATEST]
    if not records:
        begun = newest_begun(root)
        way_out = how_to_go_on(begun) if begun else f"Make one: {FIRST}"
        raise UserError(f"{root}: no finished run in this folder. {way_out}")
    return max(records, key=lambda path: (read_record(path.parent)["finished"], str(path))).parent


def how_to_go_on(run: Path | str) -> str:
    """The command that takes up a run which is not finished."""
    return f"Go on with: ccd fit --config {run}/{CONFIG} --ckpt_path {run}"


def newest_begun(root: Path) -> Path | None:
    """The run below a folder, finished or not, that saved its state last; None where none did."""
    states = [path for path in root.glob(f"**/{CHECKPOINTS}/last.ckpt") if path.parents[1].name != LATEST]
    return max(states, key=lambda path: path.stat().st_mtime).parents[1] if states else None


def newest_version(folder: Path) -> Path | None:
    """The run of a folder of runs that was begun last, whether it has saved anything or not; None without any."""
    configs = [path for path in folder.glob(f"*/{CONFIG}") if path.parent.name != LATEST]
    return max(configs, key=lambda path: path.stat().st_mtime).parent if configs else None


def read_record(run: Path) -> dict[str, Any]:
    """What `ccd fit` wrote down when the run finished.

    Raises:
        UserError: If the file is damaged.
    """
    try:
        record: dict[str, Any] = json.loads((run / RECORD).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{run / RECORD}: cannot be read ({error}). Fit the run again.") from error
    return record


def find_checkpoint(path: Path, prefer: str = "best.ckpt") -> Path:
    """The checkpoint that a path stands for.

    Args:
        path: A checkpoint file, the folder of a run, or a folder of runs (then its newest finished one).
        prefer: Which of a run's checkpoints to take, where it has it. "last.ckpt" is asked for to go on with a run,
            which need not be finished.

    Raises:
        UserError: If there is nothing of the kind.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise UserError(f"{path}: no such run or checkpoint.{_known_runs()}")
    if (path / CHECKPOINTS).is_dir():
        run = path
    else:
        run = (newest_begun(path) if prefer == "last.ckpt" else None) or newest_run(path)
    checkpoint = checkpoint_of(run, prefer)
    if checkpoint is None:
        raise UserError(f"{run}: this run has no checkpoint. Fit it again.{_known_runs()}")
    return checkpoint


def checkpoint_of(run: Path, prefer: str = "best.ckpt") -> Path | None:
    """A run's preferred checkpoint, else its last one, else the newest of any name, else None."""
    found = sorted((run / CHECKPOINTS).glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    named = [run / CHECKPOINTS / name for name in (prefer, "last.ckpt")]
    return next((path for path in (*named, *reversed(found)) if path in found), None)


def _known_runs() -> str:
    known = sorted({str(record.parent.parent) for record in ROOT.glob(f"*/*/{RECORD}")})
    return f" Finished runs: {', '.join(known)}." if known else " No run has finished yet."


def run_folder(checkpoint: Path) -> Path:
    """Where a checkpoint's results belong: its run's folder, or the file's own when it was moved out of one."""
    return checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINTS else checkpoint.parent
