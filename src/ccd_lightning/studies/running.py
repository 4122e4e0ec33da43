"""Execution of a study: finished runs are kept, interrupted ones are resumed, and failures are recorded."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from ccd_lightning.errors import Terminated, UserError
from ccd_lightning.reporting.metrics_json import read_metrics
from ccd_lightning.runs import RECORD, checkpoint_of
from ccd_lightning.studies.execution import Outcome
from ccd_lightning.studies.plan import Step
from ccd_lightning.studies.record import Progress, Record, duration, read_record, run_of, status

if sys.platform != "win32":
    import fcntl

Execute = Callable[[list[str], Path], Outcome]
LOG, LOCK = "log.txt", "study.lock"
INTERRUPTED = {130: KeyboardInterrupt, -signal.SIGINT: KeyboardInterrupt, 143: Terminated, -signal.SIGTERM: Terminated}


class Failure(Exception):
    """A run failed. The text is its error message."""


def run_steps(
    due: Sequence[Step], progress: Progress, execute: Execute, machine: Sequence[str], resume_command: str
) -> list[tuple[Step, str]]:
    """Executes the due runs with a progress bar.

    Args:
        due: Runs to execute, in order.
        progress: Progress of the study, updated as runs finish.
        execute: Function that runs a command.
        machine: Options that are added to each command.
        resume_command: Command that resumes after an interruption.

    Returns:
        The failed runs, each with the reason.

    Raises:
        KeyboardInterrupt: If a run was interrupted; likewise `Terminated`.
    """
    failed: dict[Path, tuple[Step, str]] = {}
    console = Console(file=sys.stdout)  # the real stdout, which commands replace while they print to their log
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with interruptible(resume_command), Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=len(due))
        for index, step in enumerate(due):
            bar.update(task, description=f"{step.title}{_left(due[index:], progress)}")
            console.print(f"[{index + 1}/{len(due)}] {step.title}", markup=False, highlight=False)
            try:
                if missing := next((need for need in step.needs if need.folder in failed), None):
                    raise Failure(f"not run, because its {missing.detector.replace('_', ' ')} failed")
                with claimed(step.folder):
                    outcome = _run(step, execute, machine, resume_command)
            except Failure as failure:
                failed[step.folder], outcome = (step, str(failure)), f"failed: {failure}"
            console.print(f"    {outcome}", markup=False, highlight=False)
            progress.update(step)
            bar.advance(task)
    return list(failed.values())


@contextmanager
def interruptible(resume_command: str) -> Iterator[None]:
    """Adds how to resume to the message after Ctrl-C or SIGTERM, even if no command is running."""

    def stop(*_: object) -> None:
        raise Terminated(f"Resume with: {resume_command}")

    takes_signals = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if takes_signals else None
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f"Resume with: {resume_command}") from interrupt
    finally:
        if takes_signals:
            signal.signal(signal.SIGTERM, before)


def _left(due: Sequence[Step], progress: Progress) -> str:
    """Describes the remaining time of runs, as far as it is known."""
    times = [progress.estimate(step) for step in due]
    known = sum(filter(None, times))
    return f", {'about' if None not in times else 'more than'} {duration(known)} left" if known else ""


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Locks a run against other processes that run the same study. The system releases the lock of a dead process.

    Raises:
        Failure: If another process is executing the run.
    """
    if sys.platform == "win32":  # Windows has no such locks
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Failure("another process is running it") from error
        yield


def _run(step: Step, execute: Execute, machine: Sequence[str], resume_command: str) -> str:
    """Fits a run, tests it if it is a cell, and returns a summary."""
    if status(step) == "done":
        return "done by another process"
    record = read_record(step)
    if record is None or record.digest != step.digest or not (run_of(step, record) / RECORD).is_file():
        record = _fit(step, record, execute, machine, resume_command)
    run = run_of(step, record)
    if step.is_cell:
        argv = ["test", "--ckpt_path", str(run), *machine]
        _execute(step, record, argv, execute, resume_command)
        auroc = read_metrics(run).evaluation.metrics.get("image/auroc")
        return f"image AUROC {auroc:.3f}, {duration(record.total)}" if auroc is not None else duration(record.total)
    return duration(record.total)


def _fit(step: Step, before: Record | None, execute: Execute, machine: Sequence[str], resume_command: str) -> Record:
    """Resumes an interrupted run, or starts a new one."""
    same = before is not None and before.digest == step.digest and run_of(step, before).is_dir()
    checkpoint = checkpoint_of(run_of(step, before), "last.ckpt") if same and before else None
    if before and checkpoint:
        record, last = before, ["--ckpt_path", str(checkpoint)]
    else:
        if before and same:  # it has no checkpoint, and its folder would collide with the next run
            shutil.rmtree(run_of(step, before))
        record, last = Record(step.digest, step.argv, _next_version(step.folder)), []
    logger = {"save_dir": step.folder.parent, "name": step.folder.name, "version": record.run}
    argv = [*step.argv, *(f"--trainer.logger.init_args.{name}={value}" for name, value in logger.items())]
    _execute(step, record, [*argv, *machine, *last], execute, resume_command)
    return record


def _next_version(folder: Path) -> str:
    """Returns the name of the next run, in Lightning's numbering."""
    numbers = [path.name.removeprefix("version_") for path in folder.glob("version_*")]
    return f"version_{max([int(number) for number in numbers if number.isdigit()], default=-1) + 1}"


def _execute(step: Step, record: Record, argv: list[str], execute: Execute, resume_command: str) -> None:
    """Runs a command, and records its cost."""
    record.failed = ""
    record.write(step.folder)
    outcome = execute(argv, step.folder / LOG)
    record.seconds[argv[0]] = record.seconds.get(argv[0], 0.0) + outcome.seconds
    record.memory = max(filter(None, (record.memory, outcome.memory)), default=None)
    record.gpu_memory = max(filter(None, (record.gpu_memory, outcome.gpu_memory)), default=None)
    stop = INTERRUPTED.get(outcome.code)
    record.failed = (outcome.message or f"exit code {outcome.code}") if outcome.code and not stop else ""
    record.write(step.folder)
    if stop:
        raise stop(f"Resume with: {resume_command}")
    if outcome.code:
        raise Failure(f"{record.failed} (full log: {step.folder / LOG})")


def refuse_changed(progress: Progress, due: Sequence[Step], redo: bool, file: Path) -> None:
    """Raises an error if results of other settings would be replaced without --redo.

    Raises:
        UserError: If some would be replaced.
    """
    changed = [step for step in due if progress.status[step.folder] == "changed"]
    if changed and not redo:
        titles = "; ".join(step.title for step in changed[:3]) + ("; ..." if len(changed) > 3 else "")
        raise UserError(
            f"{file}: {len(changed)} runs were made with other settings, configs or weights ({titles}). Run them again"
            " with --redo, or keep them and give another --output."
        )
