"""`ccd study`: runs encoders x detectors x data sets x seeds, and writes one table."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ccd_lightning.cli.arguments import Arguments, path_type
from ccd_lightning.commands import command, expand
from ccd_lightning.errors import Terminated, UserError

if TYPE_CHECKING:
    from ccd_lightning.studies.definition import Study
    from ccd_lightning.studies.plan import Step
    from ccd_lightning.studies.record import Progress
    from ccd_lightning.studies.running import Execute

FAILED = 3  # exit code if runs failed
PARTS = {"sets": "data", "encoders": "encoder", "detectors": "detector", "seeds": "seed"}  # option: Step attribute
SEVERAL = ("trainer.devices", "trainer.strategy", "trainer.num_nodes")  # options with which fits start processes

NOT_PARSED = ("seed_everything", "data.root", "model.encoder.weights", "model.local_encoder.weights")


def run_study(argv: list[str]) -> int:
    """Runs the unfinished runs of a study, and writes its tables.

    Args:
        argv: Options of the command.

    Returns:
        The exit code: 3 if runs failed.

    Raises:
        UserError: If there is an error in the study, in its configs, or in an option.
    """
    arguments, machine = _parser().parse_known_args(argv)
    machine = _machine_options(machine)
    from ccd_lightning.studies.plan import steps
    from ccd_lightning.studies.record import Progress
    from ccd_lightning.studies.roots import check_roots, find_roots
    from ccd_lightning.studies.study_file import find_study, read_study

    study = read_study(find_study(arguments.study))
    study = replace(study, output=arguments.output or study.output)
    chosen = {part: getattr(arguments, part) for part in PARTS if getattr(arguments, part)}
    _check_choice(study, chosen)
    roots = find_roots(study, arguments.data_root, dict(arguments.root))
    progress = Progress(steps(study, roots))
    selected = [
        step for step in progress.steps if all(getattr(step, PARTS[part]) in names for part, names in chosen.items())
    ]
    due = [] if arguments.report else progress.due(selected)
    check_commands(due, machine, study.file)
    if arguments.dry:
        from ccd_lightning.studies.dry import print_plan

        print_plan(selected, due, progress)
    check_roots(study, roots, dict.fromkeys(step.data for step in due))
    if arguments.dry:
        return 0
    return _run(study, progress, due, machine, arguments.redo, command("study", *argv))


def _run(
    study: Study, progress: Progress, due: Sequence[Step], machine: Sequence[str], redo: bool, resume_command: str
) -> int:
    """Runs what is due, and writes the tables. After an interruption, they contain the finished runs."""
    from ccd_lightning.studies.running import refuse_changed, run_steps

    refuse_changed(progress, due, redo, study.file)
    failed: list[tuple[Step, str]] = []
    try:
        if due:
            failed = run_steps(due, progress, _execute(machine), machine, resume_command)
    except (KeyboardInterrupt, Terminated):
        _finish(study, progress, [])
        raise
    return _finish(study, progress, failed)


def _finish(study: Study, progress: Progress, failed: Sequence[tuple[Step, str]]) -> int:
    """Writes the tables and prints their paths."""
    from ccd_lightning.studies.output import write_output
    from ccd_lightning.studies.results import StudyResults

    results = StudyResults(study, progress)
    files = write_output(results, {step.title: reason for step, reason in failed})
    for warning in results.warnings():
        print(f"ccd: warning: {warning}", file=sys.stderr)
    for step, reason in failed:
        print(f"ccd: failed: {step.title}: {reason}", file=sys.stderr)
    if failed:
        print(f"ccd: {len(failed)} runs failed; the same command runs them again.", file=sys.stderr)
    markdown, table, *charts = files
    print(f"\nTables: {markdown} (a row per cell: {table})")
    if charts:
        print(f"Figures: {', '.join(map(str, charts))}")
    return FAILED if failed else 0


def _execute(machine: Sequence[str]) -> Execute:
    """Returns the function that runs a command.

    It runs in this process, unless Lightning would start others, which must not run the whole study.
    """
    import torch

    from ccd_lightning.cli import main
    from ccd_lightning.studies.execution import run_apart, run_here

    several = any(arg.split("=")[0].removeprefix("--") in SEVERAL for arg in machine)
    return run_apart if several or torch.cuda.device_count() > 1 else partial(run_here, main)


def check_commands(due: Sequence[Step], machine: Sequence[str], file: Path) -> None:
    """Parses the commands, so that errors in a config or an option are reported before anything runs.

    Commands that differ only in seed, folders and weights are parsed once.

    Args:
        due: The runs.
        machine: Options of all commands.
        file: Path of the study file, used in error messages.

    Raises:
        UserError: If there is an error.
    """
    from ccd_lightning.cli.training import run_training

    different: dict[tuple[str, ...], Step] = {}
    for step in due:
        options = [f"{name}={value}" for name, value in step.options.items() if name not in NOT_PARSED]
        different.setdefault((step.config, *options), step)
    for step in different.values():
        try:
            with redirect_stdout(io.StringIO()), suppress(SystemExit):
                run_training([*step.argv, *machine, "--print_config"])
        except UserError as error:
            raise UserError(f"{file}: {step.key}: {error}") from error


def _machine_options(argv: list[str]) -> list[str]:
    """Returns the options for the runs, each as one argument."""
    found: list[str] = []
    for arg in argv:
        if arg.startswith(("--trainer.", "--data.")):
            found.append(arg)
        elif found and "=" not in found[-1] and not arg.startswith("--"):
            found[-1] = f"{found[-1]}={arg}"
        else:
            raise UserError(
                f"ccd study has no option {arg}; ccd study --help lists them. Options of its runs begin with"
                " --trainer. or --data."
            )
    return found


def _check_choice(study: Study, chosen: dict[str, list[str] | list[int]]) -> None:
    for part, names in chosen.items():
        known = getattr(study, part)
        if missing := next((name for name in names if name not in known), None):
            raise UserError(f"--{part} {missing}: {study.file} has {', '.join(map(str, known))}.")


def _root(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=DIR")
    return name, expand(path)


def _parser() -> Arguments:
    from ccd_lightning.shipped import study_names

    parser = Arguments(
        "ccd study",
        description="Fit and test every detector on every encoder, data set and seed of a study, and write one table."
        " What is finished is not run again.",
        epilog="Options that begin with --trainer. or --data. are added to each command: --trainer.accelerator gpu",
    )
    parser.add_argument(
        "study", metavar="STUDY", help=f"a study file (.yaml), or a shipped study: {', '.join(study_names())}"
    )
    parser.add_argument(
        "--data_root",
        type=path_type,
        default=Path("data"),
        metavar="DIR",
        help="folder that contains all data sets; default: data",
    )
    parser.add_argument(
        "--root", type=_root, action="append", default=[], metavar="NAME=DIR", help="folder of one data set"
    )
    parser.add_argument(
        "--output", type=path_type, metavar="DIR", help="folder of runs and tables; default: studies/NAME"
    )
    parser.add_argument("--dry", action="store_true", help="only print the runs and their estimated time")
    parser.add_argument("--redo", action="store_true", help="repeat runs whose settings have changed")
    parser.add_argument("--report", action="store_true", help="only write the tables, from the finished runs")
    for part in ("sets", "encoders", "detectors"):
        parser.add_argument(f"--{part}", nargs="+", metavar="NAME", help=f"run these {part} only")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="run these seeds only")
    return parser
