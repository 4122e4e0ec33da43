"""Running steps with commands that only pretend: what is resumed, what an interruption leaves, who may run what."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ccd_lightning.errors import Terminated
from ccd_lightning.studies.execution import Outcome
from ccd_lightning.studies.plan import Step, steps
from ccd_lightning.studies.record import Progress, read_record
from ccd_lightning.studies.running import claimed, run_steps
from ccd_lightning.studies.study_file import read_study

STUDY: dict[str, Any] = {
    "sets": {"a": "images"},
    "encoders": {"untrained": None, "ccd": "ccd_folder"},
    "detectors": {"padim": "padim_folder"},
}
METRICS = {
    "metrics": {"image/auroc": 0.75},
    "intervals": {},
    "undefined": {},
    "data": {"root": "", "images": 2, "split": ""},
}


class Commands:
    """Pretends to run commands: a fit leaves run.json, a test metrics.json.

    Args:
        ends: What becomes of a command instead, by the number of the call.
    """

    def __init__(self, ends: dict[int, Outcome] | None = None, saves: bool = True) -> None:
        self.ends, self.saves, self.calls = ends or {}, saves, list[list[str]]()

    def __call__(self, words: list[str], log: Path) -> Outcome:
        self.calls.append(words)
        given = dict(word.removeprefix("--").split("=", 1) for word in words if "=" in word)
        if words[0] == "fit":
            prefix = "trainer.logger.init_args"
            run = Path(given[f"{prefix}.save_dir"], given[f"{prefix}.name"], given[f"{prefix}.version"])
            (run / "checkpoints").mkdir(parents=True, exist_ok=True)
            if self.saves:
                (run / "checkpoints/last.ckpt").touch()
        else:
            run = Path(words[words.index("--ckpt_path") + 1])
        if end := self.ends.get(len(self.calls)):
            return end
        name, content = ("run.json", {}) if words[0] == "fit" else ("metrics.json", METRICS)
        (run / name).write_text(json.dumps(content))
        return Outcome(0, "", 10.0, 5 * 10**8, None)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    study = read_study(Path("mine.yaml"))
    return steps(study, {"a": Path("images")})


def run(plan: list[Step], commands: Commands, *machine: str) -> list[str]:
    progress = Progress(plan)
    failed = run_steps(progress.due(plan), progress, commands, machine, "ccd study mine.yaml")
    return [f"{step.encoder} {step.detector}: {reason}" for step, reason in failed]


def options(words: list[str], *names: str) -> list[str]:
    return [word.partition("=")[2] for word in words for name in names if word.startswith(f"--{name}=")]


VERSION = "trainer.logger.init_args.version"


def test_each_run_is_fitted_and_each_cell_tested(plan: list[Step]) -> None:
    commands = Commands()
    assert run(plan, commands, "--trainer.accelerator=cpu") == []
    assert [words[0] for words in commands.calls] == ["fit", "test", "fit", "fit", "test"]
    assert all("--trainer.accelerator=cpu" in words for words in commands.calls)
    record = read_record(plan[0])
    assert record is not None
    assert (record.seconds, record.memory) == ({"fit": 10.0, "test": 10.0}, 5 * 10**8)
    assert Progress(plan).due(plan) == []


@pytest.mark.parametrize(("code", "error"), [(130, KeyboardInterrupt), (143, Terminated), (-15, Terminated)])
def test_an_interrupted_run_goes_on_where_it_was(plan: list[Step], code: int, error: type[BaseException]) -> None:
    commands = Commands({3: Outcome(code, "", 7.0, None, None)})
    with pytest.raises(error, match=r"Resume with: ccd study mine\.yaml"):
        run(plan, commands)
    assert Progress(plan).status[plan[1].folder] == "interrupted"
    again = Commands()
    assert run(plan, again) == []
    assert [words[0] for words in again.calls] == ["fit", "fit", "test"]
    assert options(again.calls[0], VERSION) == ["version_0"]
    assert again.calls[0][-2:] == ["--ckpt_path", str(plan[1].folder / "version_0/checkpoints/last.ckpt")]
    assert "--ckpt_path" not in again.calls[1]
    record = read_record(plan[1])
    assert record is not None
    assert record.seconds == {"fit": 17.0}  # of both parts


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_signals_between_commands_are_reported_too(plan: list[Step], number: int, error: type[BaseException]) -> None:
    class Interrupted(Commands):
        def __call__(self, words: list[str], log: Path) -> Outcome:
            signal.raise_signal(number)
            return super().__call__(words, log)

    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells ignore in what runs in the background
    with pytest.raises(error, match=r"Resume with: ccd study mine\.yaml"):
        run(plan, Interrupted())
    assert signal.getsignal(signal.SIGTERM) == before
    assert run(plan, Commands()) == []


def test_an_interrupted_run_that_saved_nothing_begins_anew(plan: list[Step]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(plan, Commands({1: Outcome(130, "", 1.0, None, None)}, saves=False))
    again = Commands()
    run(plan, again)
    assert options(again.calls[0], VERSION) == ["version_0"]
    assert "--ckpt_path" not in again.calls[0]


def test_a_failed_test_is_repeated_without_the_fit(plan: list[Step], capsys: pytest.CaptureFixture[str]) -> None:
    failing = Commands({2: Outcome(2, "images/a.png: damaged.", 1.0, None, None)})
    (failed,) = run(plan, failing)
    assert failed == f"untrained padim: images/a.png: damaged. (full log: {plan[0].folder}/log.txt)"
    assert len(failing.calls) == 5
    assert Progress(plan).status[plan[0].folder] == "failed"
    again = Commands()
    assert run(plan, again) == []
    assert [words[0] for words in again.calls] == ["test"]


def test_cells_on_pretraining_that_failed_are_not_run(plan: list[Step]) -> None:
    commands = Commands({3: Outcome(1, "RuntimeError: out of memory", 1.0, None, None)})
    failed = run(plan, commands)
    assert [reason.split(" (")[0] for reason in failed] == [
        "ccd pretraining: RuntimeError: out of memory",
        "ccd padim: not run, because its pretraining failed",
    ]
    assert len(commands.calls) == 3


def test_pretraining_is_not_repeated_for_cells_that_are_there(plan: list[Step]) -> None:
    run(plan, Commands())
    (plan[1].folder / "version_0/run.json").unlink()
    assert Progress(plan).due(plan) == []
    (plan[2].folder / "version_0/metrics.json").unlink()
    assert Progress(plan).due(plan) == [plan[2]]  # a test needs no weights but its own
    (plan[2].folder / "version_0/run.json").unlink()
    assert Progress(plan).due(plan) == plan[1:]


def test_pretraining_is_run_for_the_pretraining_that_starts_from_it(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    encoders = {"ccd": "ccd_folder", "pmsacl": {"config": "pmsacl_folder", "from": "ccd"}}
    file.write_text(yaml.safe_dump(STUDY | {"encoders": encoders, "output": str(tmp_path / "two")}, sort_keys=False))
    two = steps(read_study(file), {"a": Path("images")})
    last = [step for step in two if step.encoder == "pmsacl" and step.is_cell]
    assert Progress(two).due(last) == [two[0], two[2], two[3]]  # without the cell of the first encoder
    run(two, Commands())
    (two[0].folder / "version_0/run.json").unlink()
    (two[3].folder / "version_0/run.json").unlink()
    assert Progress(two).due(two) == [two[3]]
    (two[2].folder / "version_0/run.json").unlink()
    assert Progress(two).due(two) == [two[0], two[2], two[3]]


def test_durations_are_estimated_from_similar_runs(plan: list[Step]) -> None:
    assert [Progress(plan).estimate(step) for step in plan] == [None] * 3
    run(plan[:1], Commands())
    progress = Progress(plan)
    assert progress.estimate(plan[2]) == 20.0  # the same detector on another encoder
    assert progress.estimate(plan[1]) is None


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_two_processes_do_not_run_the_same(plan: list[Step]) -> None:
    commands = Commands()
    with claimed(plan[0].folder):  # the lock belongs to the open file, as if another process had opened it
        assert run(plan, commands) == ["untrained padim: another process is running it"]
    assert [words[0] for words in commands.calls] == ["fit", "fit", "test"]
    assert run(plan, Commands()) == []
