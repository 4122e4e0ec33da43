from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ccd_lightning.callbacks.collapse import COLLAPSED, CollapseMonitor, FamilyAdvice
from ccd_lightning.models.heads import feature_std
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.transforms.pretext import PretextViews
from ccd_lightning.transforms.strong import Cutout, Permutation


class Fake:
    """A trainer that has just logged a standard deviation."""

    def __init__(self, value: float, name: str = "train/projection_std") -> None:
        self.global_step, self.log_every_n_steps = 1, 1
        self.callback_metrics = {"train/projection_std": torch.tensor(1.0), "train/loss": torch.tensor(0.0)}
        self.callback_metrics[name] = torch.tensor(value)


def watch(values: list[float], patience: int = 3, name: str = "train/projection_std") -> list[str]:
    monitor = CollapseMonitor(patience)
    module: Any = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step, value in enumerate(values, start=1):
            trainer: Any = Fake(value, name)
            trainer.global_step = step
            monitor.on_train_batch_end(trainer, module, None, None, 0)
    return [str(warning.message) for warning in caught if "COLLAPSED" in str(warning.message)]


def test_collapse_is_reported_once_and_says_what_to_change() -> None:
    messages = watch([0.003] * 10)
    assert len(messages) == 1
    for option in ("--model.optimizer.lr", "--model.warmup_steps", "--model.encoder.weights imagenet"):
        assert option in messages[0]


def test_a_healthy_or_shortly_low_deviation_is_not_a_collapse() -> None:
    assert watch([1.0] * 10) == []
    assert watch([0.01, 0.01, 0.7, 0.01, 0.01, 0.6]) == []


def test_features_are_watched_beside_projections() -> None:
    assert watch([0.2] * 10, name="train/feature_std") == []
    assert len(watch([0.01] * 10, name="train/feature_std")) == 1


def test_a_loss_that_is_no_number_is_reported_too() -> None:
    assert len(watch([float("nan")] * 3)) == 1


def test_the_line_separates_collapsed_from_healthy_projections() -> None:
    generator = torch.Generator().manual_seed(0)
    point = torch.ones(64, 128) + 0.001 * torch.randn(64, 128, generator=generator)
    assert (
        feature_std(point)
        < min(COLLAPSED.values())
        < max(COLLAPSED.values())
        < feature_std(torch.randn(64, 128, generator=generator))
    )


@pytest.mark.parametrize(
    ("accuracy", "module", "warned"),
    [
        (0.26, CCD(), True),
        (0.56, CCD(), False),
        (0.26, CCD(augmentation_weight=0), False),
        (None, CCD(), False),
        (0.3, CCD(distributions=5), False),
    ],
)
def test_a_family_that_cannot_be_recognised_is_reported(accuracy: float | None, module: CCD, warned: bool) -> None:
    found = {} if accuracy is None else {"val/augmentation_accuracy": torch.tensor(accuracy)}
    trainer: Any = SimpleNamespace(callback_metrics=found)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        FamilyAdvice().on_fit_end(trainer, module)
    assert [str(warning.message).split("(")[0] for warning in caught] == [
        "On held-out images the strong augmentations cannot be distinguished "
    ] * warned
    for warning in caught:  # whichever is in use, others are named
        assert all(family in str(warning.message) for family in ("Permutation", "Rotation", "Cutout", "Noise"))


@pytest.mark.parametrize(("family", "warned"), [(Cutout(), True), (Permutation(), False), (None, False)])
def test_a_hole_that_the_family_leaves_out_is_reported(family: Any, warned: bool) -> None:
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(views=PretextViews(family, cutout_size=9)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        FamilyAdvice().on_fit_start(trainer, CCD())
    assert [str(warning.message)[:48] for warning in caught] == [
        "data.views.cutout_size 9 is ignored: with Cutout"
    ] * warned
