"""Rebuilds a fitted detector from its checkpoint."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ccd_lightning.checkpoints import fitted_preprocessing, model_of, read_checkpoint
from ccd_lightning.errors import UserError
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.renamed import current_hyperparameters
from ccd_lightning.runs import find_checkpoint


def open_detector(run_or_file: str | Path, trust: bool = False) -> OneClassDetector:
    """Loads a detector of an imported class; arguments, result and errors are those of `loading.load`."""
    file = find_checkpoint(Path(run_or_file))
    return rebuild_detector(read_checkpoint(file), file, trust)


def rebuild_detector(checkpoint: dict[str, Any], file: Path, trust: bool = False) -> OneClassDetector:
    """Rebuilds a detector from a checkpoint that was already read.

    Args:
        checkpoint: Content of the checkpoint.
        file: Path of the checkpoint, used in error messages.
        trust: Whether to import the detector's class from the module that the checkpoint names.

    Raises:
        UserError: If the checkpoint is not a detector's, or its class is unknown and not trusted.
    """
    kind = _class_of(checkpoint, file, trust)
    try:
        detector = make_detector(kind, checkpoint)
        detector.load_state_dict(checkpoint["state_dict"])
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{file}: its settings or weights do not fit {kind.__name__} ({reason}).") from error
    try:
        detector.preprocessing = fitted_preprocessing(checkpoint)
    except (yaml.YAMLError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{file}: the config in it cannot be read. Fit the detector again.") from error
    return detector.requires_grad_(False).eval()


def make_detector(kind: type[Any], checkpoint: dict[str, Any]) -> OneClassDetector:
    """Creates a detector with the settings of a checkpoint, and buffers of the sizes of its tensors."""
    settings = current_hyperparameters(checkpoint.get("hyper_parameters", {}))
    detector: OneClassDetector = kind(**{key: value for key, value in settings.items() if not key.startswith("_")})
    detector.on_load_checkpoint(checkpoint)
    return detector


def _class_of(checkpoint: dict[str, Any], file: Path, trust: bool) -> type[OneClassDetector]:
    """Returns the detector's class; without trust, it must already be imported.

    Raises:
        UserError: If there is no such detector.
    """
    name = model_of(checkpoint)
    module, _, attribute = name.rpartition(".")
    if trust and module and name not in _known():
        try:
            kind: Any = getattr(importlib.import_module(module), attribute, None)
        except ImportError as error:
            raise UserError(f"{file}: its class {name} cannot be imported ({error}).") from error
        if isinstance(kind, type) and issubclass(kind, OneClassDetector):
            return kind
    if name not in _known() and (trust or not module or module.startswith("ccd_lightning.")):
        what = (
            f"a checkpoint of {name.rpartition('.')[2]}, not of a detector" if name else "not a detector's checkpoint"
        )
        raise UserError(f"{file}: {what}; ccd fit makes one, with a config such as padim_folder.")
    return known_detector(name, file)


def known_detector(name: str, file: Path) -> type[Any]:
    """Returns the class of a detector by its import path. Nothing is imported.

    Args:
        name: Import path of the class.
        file: File that names the class, used in the error message.

    Raises:
        UserError: If no imported class has this path.
    """
    if name in (known := _known()):
        return known[name]
    raise UserError(
        f"{file}: the checkpoint names the class {name}, which is not one of this program's detectors and could run any"
        " code. If you trust where it comes from, use ccd export --trust, or in Python load(..., trust=True) or import"
        " the class first."
    )


def _known() -> dict[str, type[OneClassDetector]]:
    return {f"{kind.__module__}.{kind.__qualname__}": kind for kind in _subclasses(OneClassDetector)}


def _subclasses(base: type[Any]) -> Iterator[type[Any]]:
    """Yields all imported subclasses of a class, recursively."""
    for kind in base.__subclasses__():
        yield kind
        yield from _subclasses(kind)
