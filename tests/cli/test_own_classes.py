"""Classes of the user's own: what is wrong with them is reported, not that they are unknown."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ccd_lightning.cli import main
from ccd_lightning.cli.own_code import raised_in_own_code
from tests.reliability.trials import attempt

GOOD = Path("examples/own_detector.py").resolve().read_text(encoding="utf-8")
METHOD = GOOD[GOOD.index("    def merge_ranks") : GOOD.index("    def fit_statistics")]
LAYOUT, FAMILY, PRETRAINING = (
    Path(f"examples/own_{name}.py").resolve().read_text(encoding="utf-8")
    for name in ("layout", "family", "pretraining")
)
FAULTS = {  # name of the module: its source, and the message
    "no_package": (
        GOOD.replace("import torch\n", "import not_installed\nimport torch\n", 1),
        "model: importing no_package failed: ModuleNotFoundError: No module named 'not_installed' (no_package.py, line",
    ),
    "fails": (f"{GOOD}\nx = 1 / 0\n", "model: importing fails failed: ZeroDivisionError: division by zero (fails.py"),
    "no_python": (f"{GOOD}\ndef (\n", "model: importing no_python failed: SyntaxError: invalid syntax (no_python.py"),
    "abstract": (
        GOOD.replace(METHOD, ""),
        "model: abstract.MeanDirection does not define merge_ranks, as subclasses of StatisticsDetector must.",
    ),
    "constructor": (
        GOOD.replace("self.top = top", 'raise ValueError("top is bad")'),
        "constructor.MeanDirection cannot be constructed: ValueError: top is bad (constructor.py, line",
    ),
    "no_content": (
        GOOD.replace("def collect(self, images: Tensor, content: Tensor | None = None)", "def collect(self)"),
        "no_content.py, line 44: MeanDirection.collect has the parameters (self), but must accept those of"
        " StatisticsDetector.collect: (self, images, content=None).",
    ),
    "other_name": (GOOD.replace("class MeanD", "class D"), "other_name has no class MeanDirection; it has Direction."),
}


def fit(name: str) -> list[str]:
    """A fit of a detector in the working directory."""
    return [
        "fit",
        "--model",
        f"{name}.MeanDirection",
        "--data",
        "Folder",
        "--data.root",
        ".",
        "--model.encoder.weights=null",
    ]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_file_is_reported_with_its_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, message = FAULTS[name]
    (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert message in attempt(fit(name), capsys)
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("source", "before", "after", "arguments", "message"),
    [
        (
            LAYOUT,
            "def manifest(self, masks: bool = True)",
            "def manifest(self)",
            [
                *("fit", "--config", "padim_folder", "--data", "own_code.NamedFiles", "--data.root", "."),
                "--model.encoder.weights=null",
            ],
            "NamedFiles.manifest has the parameters (self), but must accept those of AnomalyDataModule.manifest:"
            " (self, masks=True).",
        ),
        (
            LAYOUT,
            "def manifest(self, masks: bool = True)",
            "def manifest(self, root, masks)",
            ["data", "check", "--root", ".", "--layout", "own_code.NamedFiles"],
            "NamedFiles.manifest has the parameters (self, root, masks), but must accept those of",
        ),
        (
            FAMILY,
            "index: Tensor, generator: Generator | None = None",
            "index: Tensor",
            ["fit", "--config", "ccd_folder", "--data.root", ".", "--data.views.family", "own_code.ToneCurve"],
            "ToneCurve.forward has the parameters (self, images, index), but must accept those of Identity.forward:"
            " (self, images, index, generator=None).",
        ),
        (
            PRETRAINING,
            "batch: dict[str, Tensor], across_ranks: bool = False",
            "batch: dict[str, Tensor]",
            ["fit", "--model", "own_code.RotationPrediction", "--data", "Folder", "--data.root", "."],
            "has the parameters (self, batch), but must accept those of EncoderPretraining.losses:"
            " (self, batch, across_ranks=False).",
        ),
    ],
)
def test_a_method_without_a_parameter_is_reported_before_anything_is_read(
    source: str,
    before: str,
    after: str,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert before in source
    (tmp_path / "own_code.py").write_text(source.replace(before, after), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_code", raising=False)
    found = attempt(arguments, capsys)
    assert "ccd: own_code.py, line " in found
    assert message in found


@pytest.mark.parametrize(("name", "missing"), [("not_there", "not_there"), ("json.not_there", "json.not_there")])
def test_a_module_that_cannot_be_found(
    name: str, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    message = attempt(fit(name), capsys)
    assert f"model: there is no module {missing}. Add the folder that contains it to PYTHONPATH" in message


def test_numbers_are_not_taken_for_modules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*fit("ccd_lightning.modules.padim")[:1], "--model", "PaDiM", "--model.quantile", "a.b"]) == 2
    assert "model.quantile is a.b, but must be a number" in capsys.readouterr().err


def test_trust_is_not_for_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--trust is for commands that take their config from a checkpoint" in attempt(["fit", "--trust"], capsys)


@pytest.mark.parametrize(
    ("file", "own"),
    [
        ("mine.py", True),
        ("project/src/mine/detectors.py", True),
        ("usr/lib/python3/dist-packages/jsonargparse/_core.py", False),
        ("shared/lib/python3.11/site-packages/mine.py", False),  # of another environment, on PYTHONPATH
        ("modules/lightning-2.6/lightning/pytorch/cli.py", False),  # a library that was copied
    ],
)
def test_files_of_installed_packages_are_not_the_users_wherever_they_are(
    file: str, own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = ModuleType("lightning")
    library.__file__ = str(tmp_path / "modules/lightning-2.6/lightning/__init__.py")
    monkeypatch.setitem(sys.modules, "lightning", library)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("raise ValueError('no')")
    with pytest.raises(ValueError, match="no") as raised:
        runpy.run_path(str(tmp_path / file))
    trace = raised.value.__traceback__
    while trace and trace.tb_next:  # without this test's own frames
        trace = trace.tb_next
    assert ("ValueError: no" in raised_in_own_code(raised.value.with_traceback(trace))) == own
