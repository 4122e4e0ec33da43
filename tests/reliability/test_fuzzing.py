"""Readers of files from elsewhere, with what hypothesis comes up with: a result or a `UserError`, and nothing else.

Each test tries 200 examples; `make fuzz` tries 10,000.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccd_lightning.checkpoints import read_checkpoint
from ccd_lightning.cli.trust import embedded_config
from ccd_lightning.data.manifest import Manifest
from ccd_lightning.errors import UserError
from ccd_lightning.models.weights import read_tensors
from ccd_lightning.modules.padim import PaDiM
from ccd_lightning.modules.rebuilding import rebuild_detector
from ccd_lightning.reporting.metrics_json import read_metrics
from ccd_lightning.reporting.predictions_csv import read_predictions
from ccd_lightning.runs import read_record
from ccd_lightning.studies.study_file import read_study
from tests.data.test_hostile import FORMATS, read_all

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::ResourceWarning")
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
texts = st.text(st.characters(exclude_categories=[]), max_size=20) | st.sampled_from(
    ["good", "train", "test", "../x", "/dev/zero", "a.png", "=1", "null", "{", "os.system", "\0", "~", "1e999"]
)
plain = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    plain, lambda part: st.lists(part, max_size=4) | st.dictionaries(texts, part, max_size=4), max_leaves=8
)
cells = texts | st.sampled_from(["train/good/0.png", "test", "train", "good", "polyp", "0.png|1.png", '"', "\r\n"])
CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "trainer": {"max_epochs": 1, "callbacks": [], "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger"}},
    "model": {"class_path": "ccd_lightning.modules.padim.PaDiM", "init_args": {"encoder": {"name": None}}},
    "data": {"class_path": "ccd_lightning.data.datasets.Folder", "init_args": {"root": "x", "views": None}},
    "optimizer": None,
}


@st.composite
def changed(draw: st.DrawFn, whole: Any) -> Any:
    """A structure of which one part or more is another value."""
    if not isinstance(whole, dict) or draw(st.integers(0, 4)) == 0:
        return draw(values)
    found = dict(whole)
    for key in draw(st.lists(st.sampled_from(sorted(found)), max_size=2) if found else st.just([])):
        found[key] = draw(changed(found[key]))
    if draw(st.integers(0, 3)) == 0:
        found[draw(texts)] = draw(values)
    return found


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file that is cut, or in which bytes are others, most often near the beginning, where headers are."""
    content = bytearray(whole[: draw(st.integers(0, len(whole)))] if draw(st.integers(0, 3)) == 0 else whole)
    for _ in range(draw(st.integers(0, 6)) if content else 0):
        near = len(content) if draw(st.booleans()) else min(600, len(content))
        place = draw(st.integers(0, near - 1))
        part = draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff"]))
        content[place : place + len(part)] = part
    return bytes(content)


def only_user_errors(reader: Callable[[], object]) -> None:
    """Lets a reader refuse a file in a sentence."""
    with suppress(UserError), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        reader()


@same_folder
@given(st.lists(st.lists(cells, max_size=6), max_size=5), st.binary(max_size=40), st.booleans())
def test_random_manifests_are_read_or_refused(
    tmp_path: Path, rows: list[list[str]], noise: bytes, header: bool
) -> None:
    lines = [["path", "split", "kind", "mask", "group"]] * header + rows
    file = tmp_path / "split.csv"
    file.write_bytes("\n".join(",".join(row) for row in lines).encode(errors="surrogatepass") + noise)
    only_user_errors(lambda: Manifest.read(file))


@same_folder
@given(changed(CONFIG) | texts | st.binary(max_size=40).map(lambda content: content.decode("latin-1")))
def test_random_configs_of_checkpoints_are_read_or_refused(config: Any) -> None:
    text = config if isinstance(config, str) else yaml.safe_dump(config)
    only_user_errors(lambda: embedded_config(text, Path("x.ckpt")))


STUDY: dict[str, Any] = {
    "sets": {"one": {"root": "x"}},
    "encoders": {"random": None, "own": {"config": "ccd_folder"}},
    "detectors": {"padim": "padim_folder"},
    "seeds": [0, 1],
    "options": {"data.size": 64},
}


@same_folder
@given(changed(STUDY))
def test_random_studies_are_read_or_refused(tmp_path: Path, content: Any) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(content))
    only_user_errors(lambda: read_study(file))


RECORD: dict[str, Any] = {"finished": "2026-01-01T00:00:00+00:00", "model": "x"}
METRICS: dict[str, Any] = {
    "metrics": {"image/auroc": 0.5},
    "intervals": {"image/auroc": [0.4, 0.6]},
    "undefined": {},
    "data": {"root": "x", "images": 3, "split": "a"},
}


@same_folder
@given(changed(RECORD), changed(METRICS), st.lists(st.lists(cells, max_size=6), max_size=5))
def test_random_results_are_read_or_refused(tmp_path: Path, record: Any, metrics: Any, rows: list[list[str]]) -> None:
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    table = "\n".join(",".join(row) for row in [["path", "label", "score", "group"], *rows])
    (tmp_path / "predictions.csv").write_bytes(table.encode(errors="surrogatepass"))
    readers: tuple[Callable[[Path], object], ...] = (read_record, read_metrics, read_predictions)
    for reader in readers:
        only_user_errors(partial(reader, tmp_path))


def stored() -> bytes:
    """A checkpoint of two tensors."""
    content = {"state_dict": {"a": torch.arange(6.0), "b": torch.ones(2, 3)}, "hyper_parameters": {"x": 1}}
    torch.save(content, stream := io.BytesIO())
    return stream.getvalue()


STORED = stored()


@same_folder
@given(damaged(STORED), st.sampled_from([".ckpt", ".pth", ".safetensors"]))
def test_random_files_of_tensors_are_read_or_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"x{suffix}"
    file.write_bytes(content)
    only_user_errors(lambda: read_tensors(file))
    only_user_errors(lambda: read_checkpoint(file))


SETTINGS: dict[str, Any] = {
    "_class_path": f"{PaDiM.__module__}.PaDiM",
    "encoder": {"name": "tiny_resnet", "weights": None, "digest": None},
    "quantile": 0.95,
    "channels": 8,
}


@same_folder
@given(changed(SETTINGS), changed({"normal_scores": 0, "threshold": 0}))
def test_random_detectors_are_read_or_refused(settings: Any, state: Any) -> None:
    tensors = {str(name): torch.zeros(2) for name in state} if isinstance(state, dict) else {}
    if isinstance(settings, dict):
        checkpoint = {"state_dict": tensors, "hyper_parameters": settings}
        only_user_errors(lambda: rebuild_detector(checkpoint, Path("x.ckpt")))


CONTENTS = {name: make() for name, make in FORMATS.items()}


@pytest.mark.parametrize("name", FORMATS)
@settings(same_folder, max_examples=max(1, settings.default.max_examples // 10 if settings.default else 20))
@given(data=st.data())
def test_random_images_are_read_or_refused(name: str, tmp_path: Path, data: st.DataObject) -> None:
    file = tmp_path / name
    file.write_bytes(data.draw(damaged(CONTENTS[name])))
    only_user_errors(lambda: read_all(file))
