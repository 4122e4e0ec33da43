"""Adapts the thresholds of a checkpoint to changed settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ccd_lightning.checkpoints import fitted_preprocessing


def adapt_thresholds(
    state: dict[str, Tensor],
    fitted: Mapping[str, Any],
    now: Mapping[str, Any],
    names: Sequence[str],
    quantile: float,
    images: Mapping[str, tuple[Any, Any]],
) -> dict[str, Any]:
    """Removes or recomputes thresholds that do not apply to the current settings.

    If an option that affects scores has changed, the thresholds are removed. If only the quantile has changed, the
    threshold and the upper limit of the maps are recomputed from the held-out images. The pixel threshold has its own
    fixed quantile.

    Args:
        state: State dict of the detector, modified in place.
        fitted: Settings of the detector in the fit.
        now: Current settings of the detector.
        names: Dotted names of the options that affect scores.
        quantile: Current quantile.
        images: Preprocessing options that differ from the fit: their values in the fit and now.

    Returns:
        The options that differ from the fit, with their current values.
    """
    pairs = {f"model.{name}": (_at(fitted, name), _at(now, name)) for name in names}
    changed = {name: pair for name, pair in pairs.items() if pair[0] not in (None, pair[1])} | dict(images)
    found = {name: value for name, (_, value) in changed.items()}
    if changed:
        name, (before, value) = next(iter(changed.items()))
        rank_zero_warn(
            f"{name} is {value}, but was {before} when the thresholds were computed, so they are left out and no"
            " image is classified. For decisions, fit the detector with this setting."
        )
        for name in ("threshold", "pixel_threshold", "map_limits"):
            state[name] = torch.full_like(state[name], float("nan"))
        for name in ("normal_scores", "normal_maxima"):
            state[name] = state[name][:0]
    if fitted.get("quantile", quantile) != quantile and len(state["normal_scores"]):
        found["model.quantile"] = quantile
        state["threshold"] = torch.quantile(state["normal_scores"], quantile)
        if len(state["normal_maxima"]):
            high = torch.quantile(state["normal_maxima"], quantile)
            state["map_limits"] = torch.stack([state["map_limits"][0], high])
    return found


def other_images(trainer: Trainer | None, checkpoint: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns preprocessing options that differ from the fit, with their values in the fit and now.

    During a fit, nothing is returned. A different size is only returned with tiling: without it, the detector itself
    rejects other sizes.
    """
    if trainer is None or trainer.state.fn == TrainerFn.FITTING:
        return {}
    now = getattr(getattr(trainer, "datamodule", None), "preprocessing", None)
    fitted = fitted_preprocessing(checkpoint)
    changed: dict[str, tuple[Any, Any]] = fitted.differences(now) if fitted and now else {}
    if fitted and not fitted.tiling:
        changed.pop("data.size", None)
    return changed


def _at(settings: Mapping[str, Any], name: str) -> Any:
    """Returns the setting with a dotted name, or None."""
    found: Any = settings
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return list(found) if isinstance(found, tuple) else found
