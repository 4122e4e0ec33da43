"""How optional packages are installed."""

from __future__ import annotations

import shlex
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ccd_lightning import extras

OPTIONAL = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


@pytest.mark.parametrize("extra", ["dicom", "export", "nifti", "weights"])
def test_the_command_names_the_packages_of_the_extra(extra: str) -> None:
    pip, install, *packages = shlex.split(extras.pip_install(extra))
    assert [pip, install] == ["pip", "install"]
    assert set(map(Requirement, packages)) == set(map(Requirement, OPTIONAL[extra]))


def test_the_command_names_the_extra_if_its_packages_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert extras.pip_install("none") == "pip install 'ccd-lightning[none]'"

    def unknown(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "requires", unknown)
    assert extras.pip_install("nifti") == "pip install 'ccd-lightning[nifti]'"
