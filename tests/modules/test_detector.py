from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ccd_lightning.encoder_config import EncoderConfig
from ccd_lightning.modules import held_out
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.modules.held_out import PIXEL_QUANTILE


class Given(OneClassDetector):
    """Takes the image's first channel for its map."""

    def __init__(self) -> None:
        super().__init__(EncoderConfig(), 0.9)

    def score(self, images: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
        maps = images[:, 0]
        return maps.amax(dim=(1, 2)), maps

    def log(self, *args: Any, **kwargs: Any) -> None: ...


def validated(*batches: Tensor) -> Given:
    detector = Given()
    detector.trainer = Trainer(logger=False, enable_checkpointing=False, barebones=True)
    for index, images in enumerate(batches):
        detector.validation_step({"image": images}, index)
    return detector


@pytest.fixture
def images() -> Tensor:
    return torch.rand(9, 3, 16, 16, generator=torch.Generator().manual_seed(0)).mul(5).exp()


def test_pixel_threshold_is_a_quantile_of_held_out_pixels(images: Tensor) -> None:
    detector = validated(images[:4], images[4:])
    detector.on_validation_epoch_end()
    below = float((images[:, 0] <= detector.pixel_threshold).double().mean())
    assert PIXEL_QUANTILE <= below < PIXEL_QUANTILE + 1 / images[:, 0].numel() + 1e-9
    alone = validated(images)
    alone.on_validation_epoch_end()
    assert torch.equal(alone.pixel_threshold, detector.pixel_threshold)
    detector.validation_step({"image": images / 100}, 0)  # the next epoch counts anew
    detector.on_validation_epoch_end()
    assert detector.pixel_threshold == pytest.approx(float(alone.pixel_threshold) / 100, rel=1 / 2000)


def test_ranks_find_the_thresholds_of_one_process(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, others = validated(images), [validated(images[::2]), validated(images[1::2])]
    alone.on_validation_epoch_end()
    shares = [(torch.cat(other._held_out.rows), other._held_out.pixels.to_sparse()) for other in others]
    monkeypatch.setattr(held_out, "gather_ranks", lambda _: shares)
    for other in others:
        other.on_validation_epoch_end()
        assert torch.equal(other.pixel_threshold, alone.pixel_threshold)
        assert torch.equal(other.threshold, alone.threshold)
        assert torch.equal(other.map_limits, alone.map_limits)


def test_maps_with_nan_do_not_stop_validation(images: Tensor) -> None:
    detector = validated(torch.full_like(images, float("nan")))
    detector.on_validation_epoch_end()
    assert detector.pixel_threshold.isnan()
    assert detector.threshold.isnan()


def test_an_older_checkpoint_has_no_pixel_threshold(images: Tensor) -> None:
    detector = validated(images)
    detector.on_validation_epoch_end()
    state = detector.state_dict()
    del state["pixel_threshold"]
    other = Given()
    other.on_load_checkpoint({"state_dict": state})
    other.load_state_dict(state)
    assert other.pixel_threshold.isnan()
    assert torch.equal(other.threshold, detector.threshold)


class WithQuantile(Given):
    """The same, whose quantile can be chosen."""

    def __init__(self, quantile: float = 0.9) -> None:
        super().__init__()
        self.quantile = quantile
        self.hparams["quantile"] = quantile


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("quantile", [0.9, 0.5])
def test_another_quantile_recomputes_the_threshold(quantile: float, older: bool, images: Tensor) -> None:
    fitted = validated(images)
    fitted.on_validation_epoch_end()
    state = fitted.state_dict()
    if older:
        del state["normal_maxima"]
    other = WithQuantile(quantile)
    other.on_load_checkpoint({"state_dict": state, "hyper_parameters": {"quantile": 0.9}})
    other.load_state_dict(state)
    scores = images[:, 0].amax(dim=(1, 2))
    assert torch.equal(other.threshold, torch.quantile(scores, quantile))
    assert torch.equal(other.map_limits[1], torch.quantile(scores, 0.9 if older else quantile))
    assert torch.equal(other.map_limits[0], fitted.map_limits[0])
    assert torch.equal(other.pixel_threshold, fitted.pixel_threshold)
    assert torch.equal(other.normal_scores, fitted.normal_scores)
    assert other.changed == ({} if quantile == 0.9 else {"model.quantile": 0.5})


def test_another_quantile_without_held_out_images_gives_no_threshold() -> None:
    state = Given().state_dict()
    other = WithQuantile(0.5)
    other.on_load_checkpoint({"state_dict": state, "hyper_parameters": {"quantile": 0.9}})
    other.load_state_dict(state)
    assert other.threshold.isnan()
