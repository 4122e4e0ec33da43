"""Callbacks that a command adds to the user's own, and the checkpoints that a fit keeps."""

from __future__ import annotations

import inspect
from pydoc import locate
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from ccd_lightning.callbacks.breakdown import StopWhenBroken
from ccd_lightning.callbacks.charts import PretextCharts
from ccd_lightning.callbacks.checkpointing import SaveWhenTerminated, ValidateLast
from ccd_lightning.callbacks.collapse import CollapseMonitor, FamilyAdvice
from ccd_lightning.callbacks.dashboard import LearningRate
from ccd_lightning.callbacks.pace import Pace
from ccd_lightning.callbacks.pictures import PretextPictures, ReconstructionPictures
from ccd_lightning.callbacks.prediction_file import PredictionFile
from ccd_lightning.callbacks.predictions import ImagePredictions
from ccd_lightning.callbacks.ranks import WatchRanks
from ccd_lightning.callbacks.test_report import TestReport
from ccd_lightning.callbacks.throughput import Throughput
from ccd_lightning.modules.pretraining import EncoderPretraining
from ccd_lightning.modules.statistics import StatisticsDetector

CHECKPOINT = "lightning.pytorch.callbacks.ModelCheckpoint"
BEST_LOSS = {"filename": "best", "monitor": "val/loss"}
FITTED = {"filename": "best"}  # detectors without gradients: their only epoch ends with the fitted statistics
LAST = {"filename": "last", "enable_version_counter": False}  # to resume from, whether it is the best or not
KEPT: dict[type, tuple[dict[str, Any], ...]] = {
    EncoderPretraining: (BEST_LOSS, LAST),
    StatisticsDetector: (FITTED,),
    object: (LAST,),
}
KEYS = ("monitor", "mode", "every_n_train_steps", "every_n_epochs", "train_time_interval")  # by which Lightning
# distinguishes checkpoint callbacks; it rejects two that agree in all of them


def command_callbacks(command: str, writer: PredictionFile | ImagePredictions) -> list[Callback]:
    """Returns the callbacks of a command, which no config can change.

    Lightning calls them in this order, after the user's callbacks and before every `ModelCheckpoint`.

    - Callbacks that can end a fit come first: if a step breaks the training, nothing else is logged or drawn.
    - Callbacks that draw curves and pictures come next.
    - Timers come last: they exclude what the others do when the fit starts and after a validation.

    Args:
        command: One of Lightning's commands.
        writer: Callback that writes the results of `predict`.
    """
    table: dict[str, list[Callback]] = {
        "fit": [
            *(ValidateLast(), SaveWhenTerminated(), StopWhenBroken(), WatchRanks()),
            *(CollapseMonitor(), FamilyAdvice(), PretextCharts(), PretextPictures(), ReconstructionPictures()),
            *(LearningRate("step"), Throughput(), Pace()),
        ],
        "validate": [],
        "test": [TestReport()],
        "predict": [writer],
    }
    return table[command]


def with_checkpoints(config: Namespace) -> Namespace:
    """Adds the default `ModelCheckpoint`s of a model type to a command's config, which then states what is kept.

    A `ModelCheckpoint` of the user replaces the default with the same file name, or one that Lightning could not
    distinguish from it. With `trainer.enable_checkpointing: false`, none is added.

    Args:
        config: Config of a command, not changed. Returned as is if it has no model or trainer, like partial configs.
    """
    trainer, model = config.get("trainer"), config.get("model")
    if not isinstance(trainer, Namespace) or not isinstance(model, Namespace) or not model.get("class_path"):
        return config
    if trainer.get("enable_checkpointing") is False:
        return config
    given = trainer.get("callbacks") or []
    given = given if isinstance(given, list) else [given]
    kept = next(KEPT[kind] for kind in _classes(model) if kind in KEPT)
    missing = [arguments for arguments in kept if not any(_replaces(other, arguments) for other in given)]
    config = config.clone()
    config["trainer"]["callbacks"] = [*map(_spec, missing), *given] or None
    return config


def with_one_epoch(config: Namespace) -> None:
    """Sets the number of epochs to 1 for a detector without gradient training, if no length of the fit is given."""
    trainer = config["trainer"]
    if trainer["max_epochs"] is None and trainer["max_steps"] == -1 and StatisticsDetector in _classes(config["model"]):
        trainer["max_epochs"] = 1


def _classes(model: Namespace) -> tuple[type, ...]:
    """Returns the class of a config's model and its base classes."""
    return getattr(locate(model["class_path"]), "__mro__", (object,))


def _spec(arguments: dict[str, Any]) -> dict[str, Any]:
    """Returns a `ModelCheckpoint` as written in a config, with all of its arguments."""
    parameters = inspect.signature(ModelCheckpoint).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in parameters}
    return {"class_path": CHECKPOINT, "init_args": defaults | arguments}


def _replaces(given: Any, arguments: dict[str, Any]) -> bool:
    """Returns whether a callback of the user is a `ModelCheckpoint` that replaces a default one."""
    kind = locate(given["class_path"]) if isinstance(given, (Namespace, dict)) else None
    if not (isinstance(kind, type) and issubclass(kind, ModelCheckpoint)):
        return False
    theirs = dict(given.get("init_args") or {})
    return theirs.get("filename") == arguments["filename"] or (
        kind is ModelCheckpoint and _state_key(theirs) == _state_key(arguments)
    )


def _state_key(arguments: dict[str, Any]) -> str:
    return ModelCheckpoint(**{name: arguments[name] for name in KEYS if arguments.get(name) is not None}).state_key
