"""Opening a fitted detector from Python."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import yaml

from ccd_lightning.data.images import Geometry
from ccd_lightning.errors import UserError
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.modules.handover import CONFIG_KEY, model_of, read_checkpoint
from ccd_lightning.runs import find_checkpoint


def load(run_or_file: str | Path) -> OneClassDetector:
    """Opens a detector for scoring; nothing but its checkpoint is read.

    Args:
        run_or_file: A run's folder, a folder of runs (then its newest finished one), or a checkpoint file.

    Returns:
        The detector in evaluation mode, on the CPU: `detector(images)` takes (B, 3, H, W) in [0, 1] and returns scores
        (B,) and anomaly maps (B, H, W); `detector.threshold` separates the scores, and `detector.read(*files)` makes
        such images of files.

    Raises:
        UserError: If there is no such run, or it is not a detector's.
    """
    file = find_checkpoint(Path(run_or_file))
    checkpoint = read_checkpoint(file)
    settings = dict(checkpoint.get("hyper_parameters", {}))
    module, _, name = model_of(checkpoint).rpartition(".")
    kind = getattr(importlib.import_module(module), name, None) if module else None
    if not (isinstance(kind, type) and issubclass(kind, OneClassDetector)):
        raise UserError(f"{file}: not a detector's checkpoint; ccd fit makes one, with a config of PaDiM or IGD.")
    detector: OneClassDetector = kind(**{key: value for key, value in settings.items() if not key.startswith("_")})
    detector.on_load_checkpoint(checkpoint)
    detector.load_state_dict(checkpoint["state_dict"])
    detector.geometry = _geometry(checkpoint)
    return detector.requires_grad_(False).eval()


def _geometry(checkpoint: dict[str, Any]) -> Geometry | None:
    """Size, crop and range of the images, of the config that a checkpoint carries; None where it carries none."""
    config = yaml.safe_load(checkpoint.get(CONFIG_KEY, "")) or {}
    settings = config.get("data", {}).get("init_args", {})
    if "size" not in settings:
        return None
    crop, limits = (tuple(settings[name]) if settings.get(name) else None for name in ("crop", "range"))
    return Geometry(settings["size"], crop, limits)
