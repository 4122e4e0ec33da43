"""What a detector's checkpoint says is brought to the settings that it is opened with."""

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
    """Leaves out, or finds anew, what other settings than those of the fit make wrong.

    With another quantile, the threshold and the maps' upper limit are found anew among the held-out images; the pixel
    threshold has its own quantile, which is always the same.

    Args:
        state: Of a detector; it is changed.
        fitted: Its settings in the fit.
        now: Its settings now.
        names: Dotted names of those on which scores depend.
        quantile: The one to use.
        images: Options that say what images are like, and are not as in the fit: their values in the fit, and now.

    Returns:
        The options that are not as in the fit, with their values now.
    """
    pairs = {f"model.{name}": (_at(fitted, name), _at(now, name)) for name in names}
    changed = {name: pair for name, pair in pairs.items() if pair[0] not in (None, pair[1])} | dict(images)
    found = {name: value for name, (_, value) in changed.items()}
    if changed:
        name, (before, value) = next(iter(changed.items()))
        rank_zero_warn(
            f"{name} is {value}, but was {before} when the thresholds were found, so these are left out and nothing is"
            " decided. For decisions, fit the detector with this setting."
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
    """The options of the data in the fit and now, where images are scored that are brought to size otherwise.

    Another size counts with tiles alone: without, detectors refuse it themselves.
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
    """The setting of a dotted name, or None."""
    found: Any = settings
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return list(found) if isinstance(found, tuple) else found
