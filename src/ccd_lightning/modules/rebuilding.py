"""Building a fitted detector from its checkpoint."""

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
    """Opens a detector of a class that is imported; arguments, value and errors are those of `loading.load`."""
    file = find_checkpoint(Path(run_or_file))
    return rebuild_detector(read_checkpoint(file), file, trust)


def rebuild_detector(checkpoint: dict[str, Any], file: Path, trust: bool = False) -> OneClassDetector:
    """The same, of a checkpoint that is read already.

    Args:
        checkpoint: Its content.
        file: Where it was read from, for messages.
        trust: Whether to import the detector's class where the checkpoint names.
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
    """A detector of a class with a checkpoint's settings, and room for its tensors."""
    settings = current_hyperparameters(checkpoint.get("hyper_parameters", {}))
    detector: OneClassDetector = kind(**{key: value for key, value in settings.items() if not key.startswith("_")})
    detector.on_load_checkpoint(checkpoint)
    return detector


def _class_of(checkpoint: dict[str, Any], file: Path, trust: bool) -> type[OneClassDetector]:
    """The detector's class, which without trust is looked up, not imported.

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
    """The class of a detector by its import path, if it is imported.

    Args:
        name: The path.
        file: Where it is named, for the message.

    Raises:
        UserError: If there is none; nothing is imported.
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
    """All classes below one that are imported."""
    for kind in base.__subclasses__():
        yield kind
        yield from _subclasses(kind)
