"""Suggestions for names that do not exist."""

from __future__ import annotations

import ast
from pathlib import Path

from ccd_lightning import similar


def test_the_most_similar_names_are_suggested() -> None:
    assert similar.similar("padim_foldr", ["igd_folder", "padim_folder", "neighbours"]) == ["padim_folder"]
    assert similar.similar("folder", iter(["folders", "folderr", "x"]), most=3) == ["folders", "folderr"]
    assert similar.did_you_mean(["a", "b"], "none") == "did you mean a or b?"
    assert similar.did_you_mean([], "there are a, b.") == "there are a, b."


def test_names_are_compared_in_one_place() -> None:
    package = Path(similar.__file__).parent
    imports = {
        path.name
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import) and any(alias.name == "difflib" for alias in node.names)
    }
    assert imports == {"similar.py"}
