"""Checkpoints of older versions, whose options have other names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ccd_lightning import load
from ccd_lightning.checkpoints import CONFIG_KEY, fitted_preprocessing, read_checkpoint
from ccd_lightning.cli import main
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.renamed import LOCAL_SCALE, VIEWS, current_config, current_hyperparameters, current_modules


def test_options_get_the_names_that_they_have_now() -> None:
    views = {"class_path": "ccd_lightning.transforms.pretext.PretextViews", "init_args": {"hole": 75, "size": 32}}
    old = {
        "model": {"class_path": "x", "init_args": {"local_scale": {"size": 32, "drawn": 4, "chunk": 7}, "chunk": 1}},
        "data": {"init_args": {"views": views, "weak": 1}},
        "seed_everything": 3,
    }
    assert current_config(old) == {
        "model": {
            "class_path": "x",
            "init_args": {"local_scale": {"size": 32, "windows_per_image": 4, "chunk_size": 7}, "chunk": 1},
        },
        "data": {"init_args": {"views": views | {"init_args": {"cutout_size": 75, "size": 32}}, "weak": 1}},
        "seed_everything": 3,
    }
    assert views["init_args"] == {"hole": 75, "size": 32}  # the old one is no other than before
    assert current_config(current_config(old)) == current_config(old)
    assert current_hyperparameters({"local_scale": {"drawn": 4}, "drawn": 1}) == {
        "local_scale": {"windows_per_image": 4},
        "drawn": 1,
    }


def test_the_levels_of_padim_are_among_its_features() -> None:
    settings = {"layers": [1, 2], "channels": 50}
    renamed = {"features": {"layers": [1, 2]}, "channels": 50}
    path = "ccd_lightning.modules.padim.PaDiM"
    assert current_config({"model": {"class_path": path, "init_args": settings}}) == {
        "model": {"class_path": path, "init_args": renamed}
    }
    assert current_hyperparameters(settings | {"_class_path": path}) == renamed | {"_class_path": path}
    assert current_hyperparameters(settings | {"_class_path": "my.Detector"})["layers"] == [1, 2]


def test_the_range_of_grey_values_is_a_window_now() -> None:
    old = {"data": {"class_path": "x", "init_args": {"range": [0, 4000], "size": 32}}}
    assert current_config(old) == {"data": {"class_path": "x", "init_args": {"window": [0, 4000], "size": 32}}}
    checkpoint = {CONFIG_KEY: yaml.safe_dump(old)}
    assert fitted_preprocessing(checkpoint) == Preprocessing(32, window=(0, 4000))


def test_views_of_a_user_keep_their_options() -> None:
    config = {"data": {"init_args": {"views": {"class_path": "mine.Views", "init_args": {"hole": 75, "weak": 1}}}}}
    assert current_config(config) == config


@pytest.mark.parametrize("config", [None, 3, "text", [], {"model": None, "data": 3}, {"model": {"init_args": [1]}}])
def test_values_that_are_no_configs_are_left_unchanged(config: Any) -> None:
    assert current_config(config) == config


def test_modules_get_the_names_that_they_have_now() -> None:
    assert current_modules("class_path: ccd_lightning.data.sets.LAG") == "class_path: ccd_lightning.data.datasets.LAG"


def older(source: Path) -> Path:
    """A copy of a checkpoint whose options have the names of version 0.1.0."""
    content = read_checkpoint(source)
    config = yaml.safe_load(content[CONFIG_KEY])
    groups = [(config["data"]["init_args"].get("views") or {}).get("init_args", {})]
    groups += [one.get("local_scale", {}) for one in (config["model"]["init_args"], content["hyper_parameters"])]
    old_names = {new: old for old, new in (VIEWS | LOCAL_SCALE).items()}
    renamed = 0
    for group in groups:
        for name in list(group.keys() & old_names.keys()):
            group[old_names[name]] = group.pop(name)
            renamed += 1
    assert renamed >= 2
    content[CONFIG_KEY] = yaml.safe_dump(config, sort_keys=False)
    torch.save(content, "older.ckpt")
    return Path("older.ckpt")


@pytest.mark.parametrize("run", ["ccd_synthetic", "igd_synthetic"])
def test_older_runs_are_tested_predicted_and_opened(workspace: Path, run: str) -> None:
    file = older(Path(f"runs/{run}/latest/checkpoints/last.ckpt"))
    assert main(["test", "--ckpt_path", str(file)]) == 0
    if run.startswith("igd"):
        assert main(["predict", "--ckpt_path", str(file)]) == 0
        detector, usual = load(file), load(f"runs/{run}")
        assert detector.hparams["local_scale"] == usual.hparams["local_scale"]
