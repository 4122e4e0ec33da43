from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ccd_lightning.viewer.server import ViewServer
from tests.viewer.made_up import make_run, serving


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up run below the working directory."""
    monkeypatch.chdir(tmp_path)
    return make_run(tmp_path)


@pytest.fixture
def server(run: Path) -> Iterator[ViewServer]:
    with serving(run) as one:
        yield one
