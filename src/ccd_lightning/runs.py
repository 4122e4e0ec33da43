"""Run folders: runs/<name>/<version>/ with config, checkpoints and results.

A run is finished if its folder contains `run.json`, which `ccd fit` writes last.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import MAXYEAR, UTC, datetime, timedelta
from pathlib import Path
from shlex import quote
from typing import Any

from ccd_lightning.commands import command, expand
from ccd_lightning.errors import UserError
from ccd_lightning.reading import read_text

ROOT = Path("runs")
RECORD = "run.json"
LATEST = "latest"
CONFIG = "config.yaml"  # Lightning's name
MANIFEST = "manifest.csv"  # the split of each image
FIRST = "ccd fit --config neighbours_folder --data.root DIR"
CHECKPOINTS = "checkpoints"
MAX_FOLDERS = 20_000  # maximum number of folders that are searched for runs, which takes about a second


def newest_run(root: Path = ROOT) -> Path:
    """Returns the run below a folder that finished last.

    Raises:
        UserError: If no run has finished.
    """
    runs = [run for run in runs_below(root) if (run / RECORD).exists()]
    finished = finished_runs(runs)
    if not finished:
        if runs:
            raise UserError(
                f"{runs[0] / RECORD}: cannot be read, and no other run has finished. Name the run to use its"
                f" checkpoint: --ckpt_path {quote(str(runs[0]))}."
            )
        begun = newest_begun(root)
        advice = how_to_resume(begun) if begun else f"Make one: {FIRST}"
        raise UserError(f"{root}: no finished run in this folder. {advice}")
    return max(finished, key=lambda run: (finished[run], str(run)))


def runs_below(root: Path) -> Iterator[Path]:
    """Yields the runs in a folder at any depth, finished or not; the folder may be a run itself.

    Raises:
        UserError: If there are too many folders below it, for example below `/`.
    """
    for number, (folder, inner, files) in enumerate(os.walk(root)):
        if number == MAX_FOLDERS:
            raise UserError(
                f"{root}: more than {MAX_FOLDERS:,} folders, too many to search for runs. Give the folder of the run."
            )
        inner[:] = [name for name in inner if name != LATEST]  # duplicate of a run, on systems where links are folders
        if RECORD in files or {RECORD, CHECKPOINTS} & {*inner}:
            inner.clear()
            yield Path(folder)


def finished_runs(runs: Iterable[Path], warn: bool = True) -> dict[Path, datetime]:
    """Returns the times at which runs with a record finished.

    Args:
        runs: Folders of the runs.
        warn: Whether to print a warning for records that cannot be read.
    """
    found: dict[Path, datetime] = {}
    for run in runs:
        try:
            found[run] = datetime.fromisoformat(read_record(run)["finished"])
        except UserError as error:
            if warn:
                print(f"ccd: warning: run ignored: {error}", file=sys.stderr)
    return {run: time if time.tzinfo else time.replace(tzinfo=UTC) for run, time in found.items()}


def time_to_record(root: Path) -> datetime:
    """Returns the finishing time of a run: now, or if the clock was set back, after all finished runs in the folder."""
    now = datetime.now(UTC)
    others = finished_runs(_recorded(root), warn=False).values()
    return max([now, *(time + timedelta(microseconds=1) for time in others if time.year < MAXYEAR)])


def _recorded(root: Path) -> Iterator[Path]:
    """Yields the folders NAME/VERSION with a record."""
    return (path.parent for path in root.glob(f"*/*/{RECORD}") if path.parent.name != LATEST)


def how_to_resume(run: Path | str) -> str:
    """Returns the advice to resume a run, with the command."""
    return f"Resume with: {command('fit', '--config', f'{run}/{CONFIG}', '--ckpt_path', run)}"


def resume_hint(folder: str | None) -> str:
    """Returns the advice to resume the run in a folder; empty if it has no checkpoint to resume from."""
    if folder and (Path(folder) / CHECKPOINTS / "last.ckpt").is_file():
        return how_to_resume(os.path.relpath(folder))
    return ""


def newest_begun(root: Path) -> Path | None:
    """Returns the run below a folder, finished or not, with the newest last.ckpt; None if there is none."""
    states = [run / CHECKPOINTS / "last.ckpt" for run in runs_below(root)]
    states = [path for path in states if path.is_file()]  # skips broken links
    return max(states, key=lambda path: path.stat().st_mtime).parents[1] if states else None


def newest_version(folder: Path) -> Path | None:
    """Returns the run in a folder of runs that started last, with or without checkpoints; None if there are no runs."""
    configs = [path for path in folder.glob(f"*/{CONFIG}") if path.parent.name != LATEST and path.is_file()]
    return max(configs, key=lambda path: path.stat().st_mtime).parent if configs else None


def read_record(run: Path) -> dict[str, Any]:
    """Reads the record that `ccd fit` wrote when the run finished.

    Raises:
        UserError: If the file is damaged, or was not written by `ccd fit`.
    """
    try:
        record: dict[str, Any] = json.loads(read_text(run / RECORD))
        datetime.fromisoformat(record["finished"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"there is no {error} in it" if isinstance(error, KeyError) else error
        raise UserError(
            f"{run / RECORD}: cannot be read ({reason}). Name the run with --ckpt_path {quote(str(run))} to use its"
            " checkpoint, or fit it again."
        ) from error
    return record


def how_to_test(run: Path) -> str:
    """Returns the command that tests a run."""
    return command("test", "--ckpt_path", run)


def find_checkpoint(path: Path, prefer: str = "best.ckpt") -> Path:
    """Returns the checkpoint file for a path.

    Args:
        path: A checkpoint file, the folder of a run, or a folder of runs (its newest finished run is used).
        prefer: Name of the preferred checkpoint of a run. "last.ckpt" is used to resume runs and also finds runs that
            are not finished.

    Raises:
        UserError: If there is no such run or checkpoint.
    """
    path = expand(path)
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
        raise UserError(f"{run}: this run has no checkpoint; fit it again.{_known_runs()}")
    return checkpoint


def checkpoint_of(run: Path, prefer: str = "best.ckpt") -> Path | None:
    """Returns a run's preferred checkpoint, otherwise last.ckpt, otherwise the newest one, otherwise None."""
    files = (path for path in (run / CHECKPOINTS).glob("*.ckpt") if path.is_file())
    found = sorted(files, key=lambda path: path.stat().st_mtime)
    named = [run / CHECKPOINTS / name for name in (prefer, "last.ckpt")]
    return next((path for path in (*named, *reversed(found)) if path in found), None)


def _known_runs() -> str:
    known = sorted({str(run.parent) for run in finished_runs(_recorded(ROOT))})
    return f" Finished runs: {', '.join(known)}." if known else " No run has finished yet."


def run_folder(checkpoint: Path) -> Path:
    """Returns the folder for a checkpoint's results: that of its run, or of the file if it was moved out of a run."""
    return checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINTS else checkpoint.parent
