"""Restrictions on the config inside a checkpoint.

A config can name any class, which the command line imports and calls. A checkpoint may come from someone else, so its
config is checked before anything is imported: it may only name known classes, and may not set where to write.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities import rank_zero_only

from ccd_lightning.cli.config_values import argument_hints, fields_of, is_plain, refuse_special_nodes, takes_text
from ccd_lightning.cli.known_classes import SYNTHETIC, TRAINING, mentionable, usable
from ccd_lightning.commands import expand
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.datasets import Folder
from ccd_lightning.errors import UserError
from ccd_lightning.renamed import current_config, current_modules
from ccd_lightning.writing import short_text

OPTION = "--trust"
# Trainer settings that are used: numbers and words that cannot name a class, a file or a folder.
TRAINER = (
    *("precision", "deterministic", "benchmark", "inference_mode", "use_distributed_sampler", "detect_anomaly"),
    *("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches"),
    *("max_epochs", "min_epochs", "max_steps", "min_steps", "val_check_interval", "check_val_every_n_epoch"),
    *("num_sanity_val_steps", "log_every_n_steps", "accumulate_grad_batches", "gradient_clip_val"),
    *("gradient_clip_algorithm", "fast_dev_run", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"),
)
MAX_TEXT = 500_000  # characters; configs have some thousand, and parsing a megabyte of YAML takes ten seconds
MAX_IMAGES, MAX_SIDE = 10_000, 1024  # limits on images that a checkpoint may have generated
PLACES = ("dirpath", "filename")  # arguments of callbacks that set where files are written


def embedded_config(text: Any, checkpoint: Path, trust: bool = False, images: bool = False) -> dict[str, Any]:
    """Returns the config stored in a checkpoint, without what it may not decide.

    Args:
        text: The config as YAML.
        checkpoint: Path of the checkpoint, used in error messages.
        trust: Whether to accept the config without checks.
        images: Whether the data set is not read, so that a data module of the user's own is not needed.

    Returns:
        The config of a command other than `fit`, without a logger.

    Raises:
        UserError: If it cannot be read, or names something that is not known to be harmless.
    """
    try:
        if isinstance(text, str) and len(text) > MAX_TEXT:
            raise ValueError(f"it has more than {MAX_TEXT:,} characters")
        config = current_config(yaml.safe_load(current_modules(text)))
        if not isinstance(config, dict) or not all(isinstance(config.get(key), dict) for key in ("model", "data")):
            raise TypeError("it names no model and data")
        if images:
            config["data"] = _without_own_class(config["data"])
        if not trust:
            refuse_special_nodes(config)
        config["trainer"] = dict(config.get("trainer") or {})
        return config if trust else _Check(checkpoint).restricted(config)
    except (yaml.YAMLError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{checkpoint}: the config in it cannot be read ({reason}). Give one with --config.") from error


class _Check:
    """Checks a config recursively.

    Args:
        checkpoint: Path of the checkpoint, used in error messages.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.known = usable()
        self.mentionable = mentionable()

    def restricted(self, config: dict[str, Any]) -> dict[str, Any]:
        """Checks the whole config, and returns the parts that a checkpoint may decide."""
        for key in ("model", "data"):
            self._value(config[key], key, object)
        for key in ("optimizer", "lr_scheduler"):
            self._mentions(config.get(key), key)
        self._value(config.get("seed_everything"), "seed_everything", int)
        trainer = {key: config["trainer"][key] for key in TRAINER if key in config["trainer"]}
        for key, value in trainer.items():
            if not (isinstance(value, (int, float, type(None))) or re.fullmatch(r"[\w-]+", str(value))):
                raise self._refused(value, f"trainer.{key}")
        for key, value in config["trainer"].items():
            self._mentions(value, f"trainer.{key}")
        trainer["callbacks"] = self._callbacks(config["trainer"].get("callbacks"))
        return {
            "seed_everything": config.get("seed_everything"),
            "trainer": trainer,
            "model": config["model"],
            "data": self._for_here(config["data"]),
        }

    def _class(self, spec: dict[str, Any], location: str) -> None:
        """Checks a class and its arguments, `{class_path: ..., init_args: {...}}`."""
        name, arguments = spec.get("class_path"), spec.get("init_args") or {}
        if not isinstance(name, str) or name not in self.known:
            raise self._refused(name, location)
        if unknown := spec.keys() - {"class_path", "init_args"}:
            raise self._refused(sorted(map(str, unknown))[0], location)
        if not isinstance(arguments, dict):
            raise self._refused(arguments, location)
        hints = argument_hints(self.known[name])
        for key, value in arguments.items():
            if not (isinstance(key, str) and key.isidentifier()):
                raise self._refused(key, location)
            self._value(value, f"{location}.{key}", hints.get(key, object))

    def _value(self, value: Any, location: str, hint: Any) -> None:
        """Checks a value by its expected type. Values that are not plain may be classes, in one of several forms."""
        if isinstance(value, dict) and "class_path" not in value and (fields := fields_of(hint)) is not None:
            for key, part in value.items():
                if key not in fields:
                    raise self._refused(key, location)
                self._value(part, f"{location}.{key}", fields[key])
        elif isinstance(value, dict):
            self._class(value, location)
        elif isinstance(value, list):
            for part in value:
                self._value(part, location, hint)
        elif isinstance(value, str) and not (value in self.known or (is_plain(hint) and takes_text(hint))):
            raise self._refused(value, location)

    def _mentions(self, value: Any, location: str) -> None:
        """Checks which classes are named in a part that is not used."""
        if isinstance(value, dict):
            if "class_path" in value and value["class_path"] not in self.mentionable:
                raise self._refused(value["class_path"], location)
            for key, part in value.items():
                self._mentions(part, f"{location}.{key}")  # where text is an argument, such as a folder
        elif isinstance(value, list):
            for part in value:
                self._mentions(part, location)
        elif isinstance(value, str) and location in CLASSES and "." in value and value not in self.mentionable:
            raise self._refused(value, location)

    def _callbacks(self, found: Any) -> list[Any]:
        """Returns the training callbacks to which the checkpoint's state belongs, without paths to write to."""
        listed: list[Any] = found if isinstance(found, list) else [found] * (found is not None)
        specs: list[Any] = [{"class_path": spec} if isinstance(spec, str) else spec for spec in listed]
        kept: list[Any] = []
        for spec in specs:
            if not isinstance(spec, dict):
                raise self._refused(spec, "trainer.callbacks")
            if spec.get("class_path") in self.mentionable.keys() - self.known.keys():
                continue  # one of Lightning's that is not needed, such as a progress bar
            self._value(spec, "trainer.callbacks", object)
            if self.known[spec["class_path"]] in TRAINING:
                arguments = spec.get("init_args") or {}
                kept.append(spec | {"init_args": {key: arguments[key] for key in arguments if key not in PLACES}})
        return kept

    def _for_here(self, data: dict[str, Any]) -> dict[str, Any]:
        """Returns the data settings without a path to write to, and with at most as many processes as CPU cores."""
        arguments = dict(data.get("init_args") or {})
        if isinstance(workers := arguments.get("num_workers"), int):
            arguments["num_workers"] = min(workers, os.cpu_count() or 1)
        if arguments.get("cache_dir"):
            rank_zero_only(print)(
                "data.cache_dir is not taken from the checkpoint, which may not set where files are written"
            )
        return data | {"init_args": {**arguments, "cache_dir": None}}

    def _refused(self, name: Any, location: str) -> UserError:
        return UserError(
            f"{self.checkpoint}: the config in it names {short_text(name)} as {location}, which is not one of this"
            f" program's classes and could run any code. If you trust where the checkpoint comes from, add {OPTION}."
        )


def _without_own_class(data: dict[str, Any]) -> dict[str, Any]:
    """Replaces a data module that this package does not know by `Folder`, with the settings that both have."""
    if data.get("class_path") in usable():
        return data
    settings, known = data.get("init_args"), argument_hints(AnomalyDataModule)
    kept = {name: value for name, value in settings.items() if name in known} if isinstance(settings, dict) else {}
    return {"class_path": f"{Folder.__module__}.{Folder.__name__}", "init_args": kept}


def refuse_generation(data: dict[str, Any], checkpoint: Path) -> None:
    """Allows a checkpoint to generate only a small data set, and only below the working directory, as `ccd fit` does.

    Args:
        data: Data section of its config, after the location of the data is known.
        checkpoint: Path of the checkpoint, used in error messages.

    Raises:
        UserError: If images would be generated elsewhere, or too many or too large ones.
    """
    arguments = data.get("init_args") or {}
    root = expand(str(arguments.get("root", "data")))
    inside = root.resolve().is_relative_to(Path.cwd().resolve())
    if usable().get(str(data.get("class_path"))) not in SYNTHETIC or (root.is_dir() and any(root.iterdir())):
        return
    counts = [arguments.get(name) or 0 for name in ("train", "test_good", "test_abnormal")]
    few = all(isinstance(count, int) for count in counts) and sum(counts) <= MAX_IMAGES
    size = arguments.get("size", 0)
    if not (inside and few and isinstance(size, int) and size <= MAX_SIDE):
        raise UserError(
            f"{checkpoint}: the config in it asks for images to be made in {root}"
            f" ({short_text(' + '.join(map(str, counts)))} of {short_text(size)} px). Give another folder with"
            f" --data.root, or add {OPTION} if you trust where the checkpoint comes from."
        )


CLASSES = (
    *("optimizer", "lr_scheduler"),
    *(f"trainer.{key}" for key in ("logger", "callbacks", "strategy", "plugins", "profiler", "accelerator")),
)
