"""Run folders: runs/<name>/<version>/ with config, checkpoints and results.

A run is finished when `run.json` stands in its folder, which `ccd fit` writes last.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ccd_lightning.errors import UserError

ROOT = Path("runs")
RECORD = "run.json"
CHECKPOINT = Path("checkpoints") / "best.ckpt"
CONFIG_KEY = "ccd_config"


def is_finished(run: Path) -> bool:
    """Whether a folder is that of a finished run."""
    return (run / RECORD).is_file()


def newest_run(root: Path = ROOT) -> Path:
    """The run below a folder that finished last.

    Raises:
        UserError: If there is none.
    """
    records = [path for path in root.glob(f"**/{RECORD}") if not any(part.is_symlink() for part in path.parents)]
    if not records:
        raise UserError(
            f"{root}: no finished run in this folder. Make one with: ccd fit --config configs/ccd_synthetic.yaml"
        )
    return max(records, key=lambda path: (read_record(path.parent)["finished"], str(path))).parent


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


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path stands for.

    Args:
        path: A checkpoint file, the folder of a run, or a folder of runs (then its newest finished one).

    Raises:
        UserError: If there is nothing of the kind.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise UserError(f"{path}: no such run or checkpoint.{_known_runs()}")
    if (path / CHECKPOINT).is_file():
        return path / CHECKPOINT
    return newest_run(path) / CHECKPOINT


def _known_runs() -> str:
    known = sorted({str(record.parent.parent) for record in ROOT.glob(f"*/*/{RECORD}")})
    return f" Finished runs: {', '.join(known)}." if known else " No run has finished yet."


def run_folder(checkpoint: Path) -> Path:
    """Where a checkpoint's results belong: its run's folder, or the file's own when it was moved out of one."""
    return checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINT.parent.name else checkpoint.parent
