"""Translates names in checkpoints of older versions to the current ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

MODULES = {"ccd_lightning.data.sets.": "ccd_lightning.data.datasets."}
VIEWS = {"hole": "cutout_size", "weak": "augment_on"}
DATA = {"range": "window"}
LOCAL_SCALE = {"drawn": "windows_per_image", "chunk": "chunk_size"}
PADIM = "ccd_lightning.modules.padim.PaDiM"  # its option `layers` has moved to `features`
TENSORS = {"stem.0": "conv1", "stem.1": "bn1"}
OWN_VIEWS = "ccd_lightning.transforms.pretext.PretextViews"  # other classes may use any option names


def current_modules(text: str) -> str:
    """Replaces old module names in the text of a config."""
    for old, new in MODULES.items():
        text = text.replace(old, new)
    return text


def current_config(config: Any) -> Any:
    """Replaces old option names in a config; everything else, including invalid content, is unchanged."""
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
    """Replaces old option names in a model's hyper-parameters."""
    renamed: dict[str, Any] = _renamed(settings, ("local_scale",), LOCAL_SCALE)
    return _features(renamed) if settings.get("_class_path") == PADIM else renamed


def _features(settings: Any) -> Any:
    """Moves PaDiM's option `layers` into `features`."""
    if not isinstance(settings, dict) or "layers" not in settings:
        return settings
    others = {name: value for name, value in settings.items() if name != "layers"}
    return others | {"features": {"layers": settings["layers"], **others.get("features", {})}}


def _renamed(settings: Any, path: Sequence[str], names: Mapping[str, str]) -> Any:
    """Returns a copy of settings in which keys of the mapping at a path are renamed."""
    if not isinstance(settings, dict):
        return settings
    if not path:
        return {names.get(key, key): value for key, value in settings.items()}
    first, *rest = path
    return settings | {first: _renamed(settings[first], rest, names)} if first in settings else settings


def rename_tensors(state: dict[str, Any]) -> None:
    """Replaces old tensor names in a state dict: before version 0.2, the encoder was a ResNet-18 without a wrapper."""
    for name in list(state):
        found = re.fullmatch(r"(encoder|local_encoder)\.(stem\.0|stem\.1|layer[1-4])\.(.+)", name)
        if found:
            prefix, part, rest = found.groups()
            state[f"{prefix}.network.{TENSORS.get(part, part)}.{rest}"] = state.pop(name)
