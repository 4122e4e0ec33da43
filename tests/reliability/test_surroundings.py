"""What the project depends on: no network in tests, and licences that are known."""

from __future__ import annotations

import re
import socket
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest

from tests.test_dependencies import PROJECT, declared

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs/licences.md"


@pytest.mark.parametrize("host", ["192.0.2.1", "example.org", "2001:db8::1"])
@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_tests_have_no_network(host: str, method: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as made, pytest.raises(pytest.fail.Exception, match="tests use no network"):
        getattr(made, method)((host, 80))


def test_processes_of_a_test_may_talk_to_each_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass


def required() -> set[str]:
    """The names of all direct dependencies, of the extras that users install."""
    return declared(PROJECT["optional-dependencies"].keys() - {"dev", "docs"})


def listed() -> dict[str, str]:
    """The licences of the table, by the names of the packages."""
    rows = [line.split("|")[1:3] for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    return {name.strip(" `").lower(): licence.strip() for name, licence in rows}


def test_the_licence_of_every_direct_dependency_is_listed() -> None:
    assert listed().keys() == required()


@pytest.mark.parametrize("name", sorted(required()))
def test_licences_are_those_that_packages_declare(name: str) -> None:
    try:
        found = metadata(name).json
    except PackageNotFoundError:
        pytest.skip("not installed")
    declared = " ".join(str(found.get(field, "")) for field in ("license_expression", "license", "classifier"))
    words = {"BSD": "BSD", "Apache": "Apache", "MIT": "MIT", "PSF": "PSF|matplotlib|Python Software", "GPL": "GPL",
             "HPND": "HPND|MIT-CMU|CMU"}  # fmt: skip
    if "not declared" in listed()[name]:
        assert "UNKNOWN" in declared
        return
    kind = next(kind for kind in words if kind in listed()[name])
    assert re.search(words[kind], declared, re.IGNORECASE), declared[:300]
