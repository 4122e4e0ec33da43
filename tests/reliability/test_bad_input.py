"""Bad input: each row of the tables is tried through the real command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability import checkpoints, commands, configs, data_sets, options, run_files
from tests.reliability.cases import Case, check

TABLES = (options, configs, checkpoints, run_files, data_sets, commands)
CASES = [
    # Slow, together: hundreds of further values of options that each run tries with two.
    pytest.param(case, id=str(case), marks=[pytest.mark.slow] * case.rare)
    for table in TABLES
    for case in table.CASES
]


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_reported(case: Case, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(case, capsys)
