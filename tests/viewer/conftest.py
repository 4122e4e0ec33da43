from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ccd_lightning.viewer.server import ViewServer
from tests.viewer.browser import Browser, chromium
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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def page(browser: Browser, server: ViewServer) -> Iterator[Browser]:
    browser.said.clear()
    browser.open(server.url)
    browser.wait("document.activeElement.id === 'grid' && document.querySelectorAll('.tile').length")
    yield browser
    browser.open("about:blank")  # before its server goes, of which it would ask for thumbnails
