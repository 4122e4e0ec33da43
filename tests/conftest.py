"""What all tests share: one thread, a small encoder, guarded markers, the reference numbers, and trained runs."""

import functools
import ipaddress
import json
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: tests run side by side, and processes that they start inherit it

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, settings
from lightning.pytorch import Trainer

from ccd_lightning.data.synthetic import synthesize
from tests import tiny
from tests.runs import train

GOLDEN = Path(__file__).parent / "golden"

torch.set_num_threads(1)
tiny.install()

settings.register_profile("ordinary", max_examples=200, deadline=None, derandomize=True)
settings.register_profile("fuzz", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ordinary")  # --hypothesis-profile=fuzz, of `make fuzz`, comes later


allowed = frozenset({"fit", "process"})  # what the running test's markers announce


def without_network(name: str) -> None:
    """Makes a method of sockets fail for any other machine; what it raises passes `except Exception`."""
    usual: Callable[..., Any] = getattr(socket.socket, name)

    def local(self: socket.socket, *arguments: Any) -> Any:
        address = arguments[-1]
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(str(address[0])):
            pytest.fail(f"tests use no network, but this one wants to reach {address}")
        return usual(self, *arguments)

    setattr(socket.socket, name, local)


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "")


for method in ("connect", "connect_ex", "sendto"):
    without_network(method)


def guard(owner: Any, name: str, marker: str, concerns: Callable[..., bool] = lambda *_, **__: True) -> None:
    """Makes a method fail in tests without the marker, so that `make test-fast` leaves out all that is slow."""
    usual: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(usual)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        assert marker in allowed or not concerns(*args, **kwargs), f"this test needs @pytest.mark.{marker}"
        return usual(*args, **kwargs)

    setattr(owner, name, guarded)


guard(Trainer, "fit", "fit")
guard(subprocess.Popen, "__init__", "process", lambda _, words, *args, **kwargs: sys.executable in words)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests whose fixtures fit, which the first of them has to wait for."""
    for item in items:
        if {"trained", "fitted"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.fit)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tells what the next test, and the fixtures that it is the first to use, may do."""
    global allowed
    allowed = frozenset(marker.name for marker in item.iter_markers())


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Makes a test's random numbers independent of the tests before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def real_encoder() -> Iterator[None]:
    """ResNet-18 for the tests of a module, where the architecture matters."""
    with tiny.real_encoder():
        yield


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDEN / "golden.json").read_text())
    return content


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of 23 images of 64 px, free to be damaged."""
    root = tmp_path / "images"
    synthesize(root, "colonoscopy", size=64, train=12, test_good=5, test_abnormal=6)
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with fitted and tested runs of each model, made once for all processes of a test run; read only."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    place, ready = shared / "trained", shared / "trained.ready"
    with FileLock(shared / "trained.lock"):
        if not ready.exists():
            train(place)
            ready.touch()
    return place


@pytest.fixture
def workspace(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of the trained runs, free to be added to and damaged."""
    place = tmp_path / "workspace"
    shutil.copytree(trained, place, symlinks=True)
    monkeypatch.chdir(place)
    return place
