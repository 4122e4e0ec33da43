"""Hyperparameters and final metrics for TensorBoard's HParams tab."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

METRICS = ("image/auroc", "image/average_precision", "pixel/auroc", "pixel/aupro")
# Names of the hyperparameters, and their keys in a config.
PLACES = {
    "model": "model.class_path",
    "network": "model.init_args.encoder.name",
    "encoder": "model.init_args.encoder.weights",
    "local_encoder": "model.init_args.local_encoder.weights",
    "size": "data.init_args.size",
    "seed": "seed_everything",
    "batch_size": "data.init_args.batch_size",
    "learning_rate": "model.init_args.optimizer.init_args.lr",
}


def hyperparameters(config: str) -> dict[str, str | float]:
    """Returns the main hyperparameters in a config (YAML). Missing ones are left out."""
    found: dict[str, Any] = {}
    try:
        settings = yaml.safe_load(config)
    except yaml.YAMLError:  # a damaged file
        settings = None
    for name, place in PLACES.items():
        value: Any = settings
        for key in place.split("."):
            value = value.get(key, "") if isinstance(value, dict) else ""
        if isinstance(value, list):  # a size that is not square
            value = " x ".join(map(str, value))
        if value != "" and not (name == "network" and value is None):
            found[name] = "random" if value in (None, "None", "null") else value  # as EncoderConfig reads it
    if "seed" in found:
        found["seed"] = str(found["seed"])  # as text, because a number would be shown as 0.0000
    if "model" in found:
        found["model"] = found["model"].rpartition(".")[2]
    return found


def log_hyperparameters(
    writer: SummaryWriter, parameters: Mapping[str, str | float], metrics: Mapping[str, float]
) -> None:
    """Writes the parameters of a run and the scalars that are its results to TensorBoard.

    `SummaryWriter.add_hparams` would write them to a separate folder, as if it were another run.

    Args:
        writer: Summary writer of the run.
        parameters: Hyperparameters by name.
        metrics: Metrics of a test. Those in METRICS are shown, as the run's existing scalars `test/<name>`.
    """
    results = {f"test/{name}": metrics[name] for name in METRICS if name in metrics}
    for summary in hparams(dict(parameters), results):
        writer._get_file_writer().add_summary(summary)
