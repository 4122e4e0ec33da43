from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter

from ccd_lightning.reporting.hparams import hyperparameters, log_hyperparameters
from tests.tiny import NAME


def test_hyperparameters_are_those_of_the_runs_config(trained: Path) -> None:
    padim, igd = (
        hyperparameters((trained / f"runs/{name}_synthetic/version_0/config.yaml").read_text())
        for name in ("padim", "igd")
    )
    assert (padim["model"], padim["network"]) == ("PaDiM", NAME)
    assert padim["encoder"] == "runs/ccd_synthetic/version_0/checkpoints/best.ckpt"
    assert "learning_rate" not in padim
    assert igd["local_encoder"] == "runs/ccd_synthetic_local/version_0/checkpoints/best.ckpt"
    assert igd["learning_rate"] == pytest.approx(2e-3)


@pytest.mark.parametrize("weights", [None, "None", "null"])
def test_no_weights_are_called_random(weights: str | None) -> None:
    config = {"model": {"class_path": "a.B", "init_args": {"encoder": {"weights": weights}}}, "seed_everything": 0}
    assert hyperparameters(yaml.safe_dump(config)) == {"model": "B", "encoder": "random", "seed": "0"}
    assert hyperparameters("") == {}


def test_sizes_that_are_not_square_are_written_as_text() -> None:
    assert hyperparameters(yaml.safe_dump({"data": {"init_args": {"size": [96, 128]}}})) == {"size": "96 x 128"}


def test_a_run_is_sortable_in_its_own_folder(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        log_hyperparameters(writer, {"model": "PaDiM", "size": 64}, {"image/auroc": 0.75, "image/f1": 0.5})
    assert [entry for entry in tmp_path.iterdir() if entry.is_dir()] == []
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    start, experiment = (
        HParamsPluginData.FromString(events.SummaryMetadata(f"_hparams_/{name}").plugin_data.content)
        for name in ("session_start_info", "experiment")
    )
    shown = start.session_start_info.hparams
    assert shown["model"].string_value == "PaDiM"
    assert shown["size"].number_value == 64
    assert [info.name.tag for info in experiment.experiment.metric_infos] == ["test/image/auroc"]
