"""The command that a fit names at its end, for configs that are shipped and for those that are not yet."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from ccd_lightning import shipped
from ccd_lightning.cli.next_steps import FOLLOWING, _next_command
from ccd_lightning.data.datasets import Folder, SyntheticColonoscopy
from ccd_lightning.transforms.pretext import PretextViews
from tests.runs import CONFIGS

DETECTOR = """
model: {{class_path: Some, init_args: {{encoder: {{weights: {weights}}}}}}}
data: {{class_path: Folder, init_args: {{size: 128}}}}
"""


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped configs without those of the detector that is named first."""
    folder = tmp_path / "configs"
    shutil.copytree(CONFIGS, folder)
    for file in folder.glob(f"{FOLLOWING[0].kind}_*.yaml"):
        file.unlink()
    monkeypatch.setattr(shipped, "folder", lambda: folder)
    monkeypatch.chdir(tmp_path)
    return folder


def following(run: str, data: Any) -> str:
    return _next_command(Path(run), SimpleNamespace(model=nn.Identity(), datamodule=data))  # type: ignore[arg-type]


SYNTHETIC = SyntheticColonoscopy(size=128)
MINE = Folder("mine", size=128)


def test_the_first_detector_that_is_shipped_is_named(configs: Path) -> None:
    run = "runs/ccd_synthetic/version_3"
    assert following(run, SYNTHETIC) == "ccd fit --config padim_synthetic"
    (configs / "neighbours_folder.yaml").write_text(DETECTOR.format(weights="runs/ccd_folder"))
    assert following(run, SYNTHETIC) == "ccd fit --config padim_synthetic"  # which is for these images
    assert following("runs/ccd_folder/version_0", MINE) == "ccd fit --config neighbours_folder --data.root mine"
    named = "ccd fit --config neighbours_folder --data.root mine --model.encoder.weights runs/x/version_0"
    assert following("runs/x/version_0", MINE) == named
    (configs / "neighbours_synthetic.yaml").write_text(DETECTOR.format(weights="runs/ccd_synthetic"))
    assert following(run, SYNTHETIC) == "ccd fit --config neighbours_synthetic"


@pytest.mark.parametrize("weights", ["auto", "runs/ccd_folder_of_another", "null"])
def test_the_run_is_named_where_the_config_would_take_something_else(configs: Path, weights: str) -> None:
    (configs / "neighbours_folder.yaml").write_text(DETECTOR.format(weights=weights))
    named = "ccd fit --config neighbours_folder --data.root mine --model.encoder.weights runs/ccd_folder/version_0"
    assert following("runs/ccd_folder/version_0", MINE) == named


def test_sizes_that_a_config_does_not_have_are_named(configs: Path) -> None:
    (configs / "neighbours_folder.yaml").write_text(DETECTOR.format(weights="runs/ccd_folder").replace("128", "224"))
    data = Folder("mine", size=128)
    assert following("runs/ccd_folder/version_0", data).endswith("--data.root mine --data.size 128")
    assert following("runs/ccd_folder/version_0", Folder("mine", size=224)).endswith("--data.root mine")


def test_an_encoder_of_tiles_is_for_a_detector_of_windows(configs: Path) -> None:
    (configs / "neighbours_folder.yaml").write_text(DETECTOR.format(weights="runs/ccd_folder"))
    data = Folder("mine", size=64, views=PretextViews(size=32, patch_size=16, tile=16))
    run = "runs/ccd_folder_local/version_0"
    sizes = "--data.size 64 --model.global_scale.size 64"
    assert following(run, data) == f"ccd fit --config igd_folder --data.root mine {sizes}"
    named = f"--model.local_encoder.weights {Path('runs/x/version_0')} --model.encoder.weights GLOBAL_RUN"
    assert following("runs/x/version_0", data) == f"ccd fit --config igd_folder --data.root mine {sizes} {named}"


def test_every_detector_that_is_named_can_be_fitted_to_any_images() -> None:
    assert all(f"{one.kind}_folder" in shipped.names() for one in FOLLOWING[1:])
    for one in FOLLOWING:
        for file in CONFIGS.glob(f"{one.kind}_*.yaml"):
            assert shipped.value(file.stem, f"model.init_args.{one.encoder}.weights"), file
            assert shipped.value(file.stem, "data.init_args.size"), file
