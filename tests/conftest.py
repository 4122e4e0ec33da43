"""Shared fixtures: the reference numbers, and a small data set in the common folder layout."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from ccd_lightning.data.synthetic import synthesize

GOLDEN = Path(__file__).parent / "golden"
TINY = {"size": 64, "train": 12, "test_good": 5, "test_abnormal": 6}

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", min(2, os.cpu_count() or 1))))


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
