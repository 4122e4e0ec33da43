"""Which callbacks a command has besides the user's own, and which checkpoints a fit keeps."""

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
FITTED = {"filename": "best"}  # of detectors without gradients, whose one epoch ends with the fitted statistics
LAST = {"filename": "last", "enable_version_counter": False}  # to resume from, whether it is the best or not
KEPT: dict[type, tuple[dict[str, Any], ...]] = {
    EncoderPretraining: (BEST_LOSS, LAST),
    StatisticsDetector: (FITTED,),
    object: (LAST,),
}
KEYS = ("monitor", "mode", "every_n_train_steps", "every_n_epochs", "train_time_interval")  # by which Lightning tells
# checkpoint callbacks apart; it refuses two that agree in all of them


def command_callbacks(command: str, writer: PredictionFile | ImagePredictions) -> list[Callback]:
    """The callbacks of a command, which no config can change.

    Lightning calls them in this order, after the user's callbacks and before every `ModelCheckpoint`.

    - What ends a fit comes first: of a step that breaks the training, nothing else is logged or drawn.
    - What draws curves and pictures comes next.
    - Clocks come last: they leave out what the others do when the fit starts and after a validation.

    Args:
        command: One of Lightning's.
        writer: Writes what `predict` predicts.
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
    """Adds the `ModelCheckpoint`s of the model's kind to a command's config, which thereby says what is kept.

    One that the user gives takes the place of the one with the same file name, or that Lightning could not tell from
    it. With `trainer.enable_checkpointing: false` none is added.

    Args:
        config: Of a command; unchanged. One that names no model or trainer, as parts of a config do, is returned.
    """
    trainer, model = config.get("trainer"), config.get("model")
    if not isinstance(trainer, Namespace) or not isinstance(model, Namespace) or not model.get("class_path"):
        return config
    if trainer.get("enable_checkpointing") is False:
        return config
    given = trainer.get("callbacks") or []
    given = given if isinstance(given, list) else [given]
    kinds = getattr(locate(model["class_path"]), "__mro__", (object,))
    kept = next(KEPT[kind] for kind in kinds if kind in KEPT)
    missing = [arguments for arguments in kept if not any(_replaces(other, arguments) for other in given)]
    config = config.clone()
    config["trainer"]["callbacks"] = [*map(_spec, missing), *given] or None
    return config


def _spec(arguments: dict[str, Any]) -> dict[str, Any]:
    """A `ModelCheckpoint` as a config names it, with all of its arguments."""
    parameters = inspect.signature(ModelCheckpoint).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in parameters}
    return {"class_path": CHECKPOINT, "init_args": defaults | arguments}


def _replaces(given: Any, arguments: dict[str, Any]) -> bool:
    """Whether a callback of the user's is a `ModelCheckpoint` that leaves no room for ours."""
    kind = locate(given["class_path"]) if isinstance(given, (Namespace, dict)) else None
    if not (isinstance(kind, type) and issubclass(kind, ModelCheckpoint)):
        return False
    theirs = dict(given.get("init_args") or {})
    return theirs.get("filename") == arguments["filename"] or (
        kind is ModelCheckpoint and _state_key(theirs) == _state_key(arguments)
    )


def _state_key(arguments: dict[str, Any]) -> str:
    return ModelCheckpoint(**{name: arguments[name] for name in KEYS if arguments.get(name) is not None}).state_key
