"""Validation by pseudo-lesions: one sample, whatever the batches, the ranks and the loader."""

import math
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.utils.data import DataLoader

from ccd_lightning.models.content import pixels_within
from ccd_lightning.modules.pseudo_lesions import MAX_IMAGES, PER_IMAGE, PseudoLesions, auroc
from tests.modules.test_detector import Given

QUIET: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)


def held_out(count: int = 12, side: int = 40) -> Tensor:
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    smooth = 0.2 + 0.6 * torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    return (smooth * 255).round() / 255  # of 8 bits, as files are


def brightness(images: Tensor, _: Tensor | None = None) -> dict[str, Tensor]:
    maps = images.amax(dim=1)
    return {"scores": maps.amax(dim=(1, 2)), "maps": maps}


def pasted(batches: Sequence[Tensor], seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    lesions = PseudoLesions()
    for images in batches:
        lesions.add(images)
    return [part[:2] for part in lesions.paste(seed)]


def in_order(shares: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Images and masks of any batches as rows (N, 4 H W), sorted."""
    rows = torch.cat([torch.cat([images.flatten(1), masks.flatten(1)], dim=1) for images, masks in shares])
    return torch.from_numpy(rows.numpy()[np.lexsort(rows.numpy().T)])


@pytest.mark.parametrize(("count", "expected"), [(1, PER_IMAGE), (12, 12 * 8), (30, 30 * 3), (150, MAX_IMAGES)])
def test_the_number_of_images_is_bounded(count: int, expected: int) -> None:
    assert sum(len(images) for images, _ in pasted([held_out(count, 16)])) == expected <= MAX_IMAGES


def test_neither_batches_nor_their_order_matter() -> None:
    images = held_out(120, 16)
    together = in_order(pasted([images]))
    assert torch.equal(in_order(pasted(torch.split(images.flip(0), 7))), together)
    assert torch.equal(in_order(pasted(torch.split(images, 1))), together)
    assert not torch.equal(in_order(pasted([images], seed=1)), together)
    assert (
        max(len(part) for part, _ in pasted(torch.split(held_out(3), 2))) == 2
    )  # never more at once than in validation


def test_every_image_gets_its_own_lesions_and_several_of_them() -> None:
    images = held_out(6)
    parts = pasted([images])
    masks = torch.cat([masks for _, masks in parts])
    assert len(masks.unique(dim=0)) == len(masks) == 48
    twice = pasted([images[:1].repeat(2, 1, 1, 1)])  # duplicates are one image, seen twice
    assert torch.equal(twice[0][1], twice[4][1])


def ranks(shares: Sequence[Tensor]) -> list[dict[str, float]]:
    """What each of some ranks measures that hold these images; a thread each, and all of them gather."""
    normal = brightness(torch.cat(list(shares)))["scores"]
    barrier, sent = threading.Barrier(len(shares), timeout=60), [None] * len(shares)

    def run(rank: int) -> dict[str, float]:
        def gather(own: Any) -> list[Any]:
            sent[rank] = own
            barrier.wait()
            everyone = list(sent)
            barrier.wait()
            return everyone

        lesions = PseudoLesions(gather)
        lesions.add(shares[rank])
        return lesions.measure(brightness, normal, seed=3)

    with ThreadPoolExecutor(len(shares)) as pool:
        return list(pool.map(run, range(len(shares))))


def test_two_ranks_measure_what_one_does() -> None:
    for count in (5, 120):
        images = held_out(count, 24)
        (alone,) = ranks([images])
        for shares in ([images[::2], images[1::2]], [images[:3], images[3:]]):
            assert ranks(shares) == [alone, alone]
        assert 0.5 < alone["pseudo_auroc"] < 1
        assert 0.3 < alone["pseudo_pixel_auroc"] < 1


def test_measures_are_those_of_scikit_learn() -> None:
    images, lesions = held_out(), PseudoLesions()
    lesions.add(images)
    normal = brightness(images)["scores"]
    found = lesions.measure(brightness, normal, seed=0)
    shown, masks = (torch.cat(parts) for parts in zip(*pasted([images]), strict=True))
    output = brightness(shown)
    labels = np.repeat((0, 1), (len(images), len(shown)))
    assert found["pseudo_auroc"] == pytest.approx(roc_auc_score(labels, torch.cat([normal, output["scores"]])))
    expected = roc_auc_score(masks.flatten(), output["maps"].flatten())
    assert found["pseudo_pixel_auroc"] == pytest.approx(expected, abs=1e-4)  # values are binned


def test_ties_count_half_and_what_is_no_number_is_not_counted() -> None:
    assert auroc(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0])) == pytest.approx(7 / 8)
    assert math.isnan(auroc(torch.tensor([1.0, torch.nan]), torch.tensor([2.0])))
    assert math.isnan(auroc(torch.empty(0), torch.tensor([2.0])))


class Logged(Given):
    """Writes down what is logged, and how often it scores images."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: dict[str, float] = {}
        self.scored = 0

    def score(self, images: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.scored += len(images)
        return super().score(images, content)

    def log_dict(self, values: Any, **options: Any) -> None:  # type: ignore[override]
        self.logged |= {name: float(value) for name, value in values.items()}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None: ...

    def configure_optimizers(self) -> None: ...


def fitted(batch_size: int, **options: Any) -> Logged:
    torch.manual_seed(0)
    detector = Logged()
    loader: DataLoader[Any] = DataLoader([{"image": image} for image in held_out()], batch_size=batch_size)  # type: ignore[arg-type]
    trainer = Trainer(accelerator="cpu", max_epochs=1, **QUIET, **options)
    trainer.fit(detector, loader, loader)
    return detector


@pytest.mark.fit
@pytest.mark.filterwarnings("ignore")
def test_fits_with_plain_loaders_log_pseudo_lesions_and_keep_their_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    one, all_at_once = fitted(1), fitted(8, num_sanity_val_steps=2)
    assert one.logged == all_at_once.logged
    assert set(one.logged) == {"val/threshold", "val/pseudo_auroc", "val/pseudo_pixel_auroc"}
    assert one.logged["val/pseudo_auroc"] > 0.5
    assert one.scored == all_at_once.scored == 12 + 12 * 8
    monkeypatch.setattr(PseudoLesions, "measure", lambda *_: {})
    without = fitted(8)
    assert without.scored == 12
    assert set(without.logged) == {"val/threshold"}
    for name, value in without.state_dict().items():
        assert torch.equal(value, one.state_dict()[name]), name


def test_images_that_are_not_kept_are_freed() -> None:
    lesions = PseudoLesions()
    lesions.add(held_out(12))
    assert all(kept.image.untyped_storage().nbytes() == 3 * 40**2 for kept in lesions._kept)


def test_lesions_are_within_the_content_and_pixels_of_margins_do_not_count() -> None:
    images, lesions = held_out(6), PseudoLesions()
    boxes = torch.tensor([[10, 0, 30, 40], [0, 12, 40, 24], [0, 0, 40, 40]]).repeat(2, 1)
    lesions.add(images, boxes)
    for pasted_images, masks, content in lesions.paste(0):
        inside = pixels_within(content, (40, 40))
        assert not masks[~inside].any()
        assert masks.flatten(1).any(dim=1).all()
        original = [image for image in images if torch.equal(image[:, 0, 0], pasted_images[0][:, 0, 0])]
        assert original or bool(inside[0, 0, 0])
    lesions.add(images, boxes)

    def blind(shown: Tensor, content: Tensor) -> dict[str, Tensor]:
        """Sees what `brightness` sees, and the margins as what is least normal."""
        output = brightness(shown)
        return output | {"maps": torch.where(pixels_within(content, (40, 40)), output["maps"], 9.0)}

    found = lesions.measure(blind, brightness(images)["scores"], 0)
    lesions.add(images, boxes)
    assert found == lesions.measure(brightness, brightness(images)["scores"], 0)


def test_of_large_images_fewer_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccd_lightning.modules.pseudo_lesions.MAX_PIXELS", 5 * 40 * 40)
    assert sum(len(images) for images, _ in pasted([held_out(12)])) == 5
