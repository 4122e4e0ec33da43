"""What import-linter, which sees packages as a whole, cannot check."""

import ast
from pathlib import Path

import pytest

import ccd_lightning

SOURCE = Path(ccd_lightning.__file__).parent


def imported(file: Path) -> set[str]:
    """The modules, and names in modules, that a file imports."""
    names = set[str]()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("file", sorted((SOURCE / "metrics").rglob("*.py")), ids=lambda file: file.stem)
def test_metrics_need_no_networks(file: Path) -> None:
    assert not {name for name in imported(file) if f"{name}.".startswith("torch.nn.")}


@pytest.mark.parametrize("file", sorted((SOURCE / "data").rglob("*.py")), ids=lambda file: file.stem)
def test_only_data_modules_know_of_lightning(file: Path) -> None:
    used = {name for name in imported(file) if f"{name}.".startswith("lightning.")}
    assert not used or file.stem in ("datamodule", "datasets", "image_files", "loading")
