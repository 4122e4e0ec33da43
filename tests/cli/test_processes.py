"""Real processes, through the command line: two give what one gives."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ccd_lightning.cli import main
from ccd_lightning.data.layouts import scan_folder
from ccd_lightning.data.manifest import Manifest
from ccd_lightning.data.synthetic import synthesize
from ccd_lightning.metrics.detection import SIZES
from ccd_lightning.metrics.image import IMAGE_METRICS
from ccd_lightning.metrics.pixel_table import PIXEL_METRICS
from tests import processes
from tests.processes import RANKS
from tests.runs import CONFIGS, VIEWS

pytestmark = [pytest.mark.fit, pytest.mark.process]
KINDS = ("polyp_subtle", "polyp_moderate", "polyp_obvious")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 10 + 3 images to learn from, and of 13 to test on, with masks, three kinds, and groups of two."""
    place = tmp_path_factory.mktemp("ranks")
    synthesize(place / "images", "colonoscopy", size=64, train=13, test_good=5, test_abnormal=8)
    split = scan_folder(place / "images")
    test = [replace(row, group=f"{row.anomaly_type} {number // 2}") for number, row in enumerate(split.select("test"))]
    Manifest(split.root, [*split.select("train"), *test]).write(split.root / "table.csv")
    return place


@pytest.fixture(autouse=True)
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def ccd(*words: str) -> None:
    """Runs a command, in processes of its own where it asks for several."""
    if words[-len(RANKS) :] == tuple(RANKS):
        processes.run(*words)
    else:
        assert main(words) == 0


def fit(kind: str, name: str, *words: str) -> Path:
    own = ["--data.root", "images/table.csv", "--data.size", "64", "--data.batch_size", "3"]
    named = ["--trainer.logger.init_args.name", name]
    ccd("fit", "--config", str(CONFIGS / f"{kind}_folder.yaml"), *own, *named, *words)
    return Path("runs") / name / "version_0"


def measured(run: Path, *words: str) -> dict[str, Any]:
    """All of metrics.json, and the rows of predictions.csv, as "images"."""
    ccd("test", "--ckpt_path", str(run), *words)
    content: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    rows = list(csv.DictReader((run / "predictions.csv").read_text().splitlines()))
    numbers = ("score", "percentile")
    content["images"] = [row | {name: float(row[name]) for name in numbers} for row in rows]
    return content


def assert_same(found: Any, expected: Any, precision: float = 1e-6) -> None:
    """Sees that all is equal, and floating-point numbers but for rounding, which depends on the size of batches."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        pairs = [(found[name], expected[name]) for name in expected]
    elif isinstance(expected, list):
        pairs = list(zip(found, expected, strict=True))
    else:
        assert found == (pytest.approx(expected, rel=precision) if isinstance(expected, float) else expected)
        return
    for one, other in pairs:
        assert_same(one, other, precision)


def test_padim_gives_the_same_results_on_two_ranks() -> None:
    alone = fit("padim", "alone", "--model.encoder.weights", "null")
    shared = fit("padim", "shared", "--model.encoder.weights", "null", *RANKS)
    expected, single, double = measured(alone), measured(shared), measured(shared, *RANKS)
    assert_same(double, single)
    assert single["run"]["threshold"] == pytest.approx(expected["run"]["threshold"], rel=1e-5)
    for name in ("metrics", "intervals", "undefined", "data"):
        assert_same(single[name], expected[name], precision=1e-5)
    paths = [row["path"] for row in double["images"]]
    assert len(set(paths)) == len(paths) == double["data"]["images"] == 13  # the ranks have 7 and 6 of them
    assert (double["data"]["abnormal"], double["data"]["masks"], double["data"]["groups"]) == (8, 8, 8)
    assert double["run"]["bootstrap"]["unit"] == "group"
    everything = {*IMAGE_METRICS, *PIXEL_METRICS}
    assert set(double["intervals"]) >= everything
    assert set(double["metrics"]) >= everything | {f"pixel/aupro/{part}" for part in (*KINDS, *SIZES)}


def test_igd_gives_the_same_results_on_two_ranks() -> None:
    weights = ["--model.encoder.weights", "null", "--model.local_encoder.weights", "null", "--trainer.max_epochs", "1"]
    run = fit("igd", "igd", *weights, "--model.global_scale.size", "64", "--model.latent_size", "8", *RANKS)
    single, double = measured(run), measured(run, *RANKS)
    assert_same(double, single, precision=1e-5)
    assert single["run"]["threshold"] > 0


def test_pretraining_is_tested_alike_on_two_ranks() -> None:
    run = fit("ccd", "pretrained", *VIEWS, "--trainer.max_epochs=1", *RANKS)
    assert measured(run)["metrics"]["image/auroc"] == measured(run, *RANKS)["metrics"]["image/auroc"]
