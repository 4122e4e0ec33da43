"""Names in checkpoints of older versions, and what they are called now."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

MODULES = {"ccd_lightning.data.sets.": "ccd_lightning.data.datasets."}
VIEWS = {"hole": "cutout_size", "weak": "augment_on"}
DATA = {"range": "window"}
LOCAL_SCALE = {"drawn": "windows_per_image", "chunk": "chunk_size"}
PADIM = "ccd_lightning.modules.padim.PaDiM"  # whose option `layers` is one of its features' now
TENSORS = {"stem.0": "conv1", "stem.1": "bn1"}
OWN_VIEWS = "ccd_lightning.transforms.pretext.PretextViews"  # others may have options by any name


def current_modules(text: str) -> str:
    """A config's text with the names that modules have now."""
    for old, new in MODULES.items():
        text = text.replace(old, new)
    return text


def current_config(config: Any) -> Any:
    """A config with the names that options have now; the rest of it stays as it is, whatever it is."""
    config = _renamed(config, ("model", "init_args", "local_scale"), LOCAL_SCALE)
    config = _renamed(config, ("data", "init_args"), DATA)
    model = config.get("model") if isinstance(config, dict) else None
    if isinstance(model, dict) and model.get("class_path") == PADIM:
        config = config | {"model": model | {"init_args": _features(model.get("init_args"))}}
    views = config
    for key in ("data", "init_args", "views"):
        views = views.get(key) if isinstance(views, dict) else None
    if isinstance(views, dict) and views.get("class_path") == OWN_VIEWS:
        config = _renamed(config, ("data", "init_args", "views", "init_args"), VIEWS)
    return config


def current_hyperparameters(settings: dict[str, Any]) -> dict[str, Any]:
    """A model's hyper-parameters with the names that they have now."""
    renamed: dict[str, Any] = _renamed(settings, ("local_scale",), LOCAL_SCALE)
    return _features(renamed) if settings.get("_class_path") == PADIM else renamed


def _features(settings: Any) -> Any:
    """PaDiM's options with the levels among its features."""
    if not isinstance(settings, dict) or "layers" not in settings:
        return settings
    others = {name: value for name, value in settings.items() if name != "layers"}
    return others | {"features": {"layers": settings["layers"], **others.get("features", {})}}


def _renamed(settings: Any, path: Sequence[str], names: Mapping[str, str]) -> Any:
    """A copy of settings whose keys at a path have other names."""
    if not isinstance(settings, dict):
        return settings
    if not path:
        return {names.get(key, key): value for key, value in settings.items()}
    first, *rest = path
    return settings | {first: _renamed(settings[first], rest, names)} if first in settings else settings


def rename_tensors(state: dict[str, Any]) -> None:
    """Gives the tensors of a checkpoint today's names: before version 0.2, ResNet-18 was the encoder itself."""
    for name in list(state):
        found = re.fullmatch(r"(encoder|local_encoder)\.(stem\.0|stem\.1|layer[1-4])\.(.+)", name)
        if found:
            prefix, part, rest = found.groups()
            state[f"{prefix}.network.{TENSORS.get(part, part)}.{rest}"] = state.pop(name)
