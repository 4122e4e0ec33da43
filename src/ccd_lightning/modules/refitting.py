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
from ccd_lightning.errors import UserError


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


def refuse_changes(
    trainer: Trainer | None, fitted: Mapping[str, Any], now: Mapping[str, Any], names: Sequence[str], detector: str
) -> None:
    """Refuses options that differ from the fit, but are not among those that can be changed after it.

    Such an option would have no effect, or change the scores without changing the thresholds. During a fit, nothing is
    refused.

    Args:
        trainer: Trainer that loads the checkpoint; None for `load`, which takes all settings from the checkpoint.
        fitted: Settings of the detector in the fit.
        now: Current settings of the detector.
        names: Dotted names of the options that can be changed.
        detector: Name of the detector's class, for the message.

    Raises:
        UserError: If another option differs.
    """
    if trainer is None or trainer.state.fn == TrainerFn.FITTING:
        return
    before, after = _leaves(fitted), _leaves(now)
    for name in before.keys() & after.keys() - {*names, "quantile"}:
        if before[name] != after[name]:
            raise UserError(
                f"model.{name} is {after[name]}, but was {before[name]} in the fit, and {detector} cannot change it"
                " afterwards. Leave the option out, or fit the detector with it."
            )


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


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns plain settings by their dotted names, without those of encoders, which checkpoints determine."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and not str(name).endswith("encoder"):
            found |= _leaves(value, f"{prefix}{name}.")
        elif value is None or isinstance(value, (bool, int, float, str, list, tuple)):
            found[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return found


def _at(settings: Mapping[str, Any], name: str) -> Any:
    """Returns the setting with a dotted name, or None."""
    found: Any = settings
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return list(found) if isinstance(found, tuple) else found
