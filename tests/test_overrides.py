"""Methods of a user's own classes must accept the arguments with which they are called."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.datasets import Folder
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.errors import UserError
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.overrides import check_overrides
from ccd_lightning.transforms.strong import Identity


class WithoutMasks(AnomalyDataModule):
    def manifest(self) -> Any: ...  # type: ignore[override]


class OtherName(AnomalyDataModule):
    def manifest(self, with_masks: bool = True) -> Any: ...


class Anything(AnomalyDataModule):
    def manifest(self, *args: Any, **kwargs: Any) -> Any: ...


class More(Folder):
    def manifest(self, masks: bool = True, other: int = 0) -> Any: ...

    def setup(self, stage: str) -> None: ...

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any: ...

    def own(self, first: int, second: int) -> None: ...

    def _load(self) -> Any: ...  # type: ignore[override]


class OtherStage(More):
    def setup(self) -> None: ...  # type: ignore[override]


class NeedsMore(More):
    def manifest(self, masks: bool, other: int) -> Any: ...  # type: ignore[override]


class ImagesAlone(OneClassDetector):
    def __init__(self) -> None:
        super().__init__(None, 0.9)

    def score(self, images: Any) -> Any: ...  # type: ignore[override]

    def validation_step(self, batch: Any) -> None: ...  # type: ignore[override]

    def check_size(self, size: tuple[int, int], option: str) -> None: ...


class Boxes(ImagesAlone):
    def score(self, images: Any, boxes: Any = None) -> Any: ...


class Nothing(ImagesAlone):
    def score(self) -> Any: ...  # type: ignore[override]


class MethodForProperty(ImagesAlone):
    def encoders(self) -> Any: ...  # type: ignore[override]


class PropertyForMethod(ImagesAlone):
    @property
    def check_images(self) -> Any: ...


class OwnEncoders(ImagesAlone):
    @property
    def encoders(self) -> Any: ...


class EncodersAsAttribute(ImagesAlone):
    encoders = ()  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [Anything, More, ImagesAlone, Boxes, Folder, OwnEncoders, EncodersAsAttribute])
def test_methods_that_can_be_called_are_accepted(kind: type) -> None:
    check_overrides(kind)


@pytest.mark.parametrize(
    ("kind", "method", "own", "expected"),
    [
        (WithoutMasks, "manifest", "(self)", r"AnomalyDataModule\.manifest: \(self, masks=True\)"),
        (OtherName, "manifest", "(self, with_masks=True)", r"AnomalyDataModule\.manifest: \(self, masks=True\)"),
        (OtherStage, "setup", "(self)", r"Folder\.setup: \(self, stage\)"),
        (NeedsMore, "manifest", "(self, masks, other)", r"Folder\.manifest: \(self, masks=True\)"),
        (Nothing, "score", "(self)", r"OneClassDetector\.score: \(self, images, content=None\)"),
    ],
)
def test_others_are_named_with_what_is_expected(kind: type, method: str, own: str, expected: str) -> None:
    place = r"test_overrides\.py, line \d+"
    own = own.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(UserError, match=rf"{place}: {kind.__name__}\.{method} has the parameters {own}, .* {expected}"):
        check_overrides(kind)


def test_a_property_must_stay_a_property_and_a_method_a_method() -> None:
    place = r"test_overrides\.py, line \d+"
    fix = "a method, but must be a property. Write @property above it"
    with pytest.raises(UserError, match=rf"{place}: MethodForProperty\.encoders is {fix}"):
        check_overrides(MethodForProperty)
    fix = "a property, but must be a method. Remove @property above it"
    with pytest.raises(UserError, match=rf"{place}: PropertyForMethod\.check_images is {fix}"):
        check_overrides(PropertyForMethod)


def test_the_content_is_needed_for_images_with_a_margin_only() -> None:
    squashed, letterboxed = (Preprocessing(32, fit=fit) for fit in ("squash", "letterbox"))
    ImagesAlone().check_images(squashed, torch.device("cpu"), 1)
    Boxes().check_images(letterboxed, torch.device("cpu"), 1)
    with pytest.raises(UserError, match=r"ImagesAlone\.score has the parameters \(self, images\)"):
        ImagesAlone().check_images(letterboxed, torch.device("cpu"), 1)


def test_a_class_with_the_same_methods_need_not_be_a_subclass() -> None:
    class Family(torch.nn.Module):
        def forward(self, images: Any, index: Any) -> Any: ...

        def other(self) -> None: ...

    with pytest.raises(UserError, match=r"Family\.forward has the parameters \(self, images, index\)"):
        check_overrides(Family, Identity, ("forward",))
    check_overrides(Family, Identity, ("other",))
    check_overrides(type(lambda image, seed: {}), Identity, ("forward",))
