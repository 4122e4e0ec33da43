"""`ccd study --dry`: shows the runs and their estimated time."""

from __future__ import annotations

from collections.abc import Sequence

from ccd_lightning.studies.plan import Step
from ccd_lightning.studies.record import Progress, duration
from ccd_lightning.text_tables import print_table


def print_plan(steps: Sequence[Step], due: Sequence[Step], progress: Progress) -> None:
    """Prints the runs in order, and the estimated time of those that are due.

    Args:
        steps: Runs to show. Pretraining runs that are no longer needed are left out.
        due: Runs that will be executed.
        progress: Progress of all runs.
    """
    waiting = {step.folder for step in due}
    shown = [step for step in progress.steps if step.folder in waiting | {one.folder for one in steps}]
    shown = [step for step in shown if step.folder in waiting or step.is_cell or progress.status[step.folder] == "done"]
    rows = []
    estimates = {step.folder: progress.estimate(step) for step in due}
    for step in shown:
        status = progress.status[step.folder]
        time = (
            _time(estimates[step.folder]) if step.folder in waiting else duration(progress.records[step.folder].total)
        )
        rows.append([step.data, step.encoder, step.detector.replace("_", " "), str(step.seed), status, time])
    print_table(["set", "encoder", "run", "seed", "status", "time"], rows, right=[3, 5], whole=())
    known = [seconds for seconds in estimates.values() if seconds is not None]
    print(f"{len(due)} runs to do, {sum(progress.status[step.folder] == 'done' for step in shown)} done.", end=" ")
    if not due:
        print("Nothing is left to run.")
    elif not known:
        print("No similar run has finished yet, so their time cannot be estimated: run one seed first (--seeds).")
    else:
        unknown = len(due) - len(known)
        rest = f", and {unknown} more whose time is not known yet" if unknown else ""
        print(f"About {duration(sum(known))} for {len(known)} of them{rest}, by the times of finished runs.")


def _time(seconds: float | None) -> str:
    return "?" if seconds is None else f"~{duration(seconds)}"
