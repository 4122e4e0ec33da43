"""Measures how well held-out normal images are separated from copies with pseudo-lesions. No labels are used."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ccd_lightning.distributed import gather_ranks
from ccd_lightning.metrics.histogram import BINS, count_values
from ccd_lightning.metrics.threshold_metrics import partial_auc, score_counts
from ccd_lightning.metrics.types import Floats
from ccd_lightning.models.content import pixels_within, whole
from ccd_lightning.transforms.lesions import MIN_SIDE
from ccd_lightning.transforms.medmix import paste_lesions

Evaluate = Callable[[Tensor, Tensor], dict[str, Tensor]]
Pasted = tuple[Tensor, Tensor, Tensor]  # images (N, 3, H, W), lesion masks (N, H, W), and content boxes (N, 4)

MAX_IMAGES = 100  # approximate number of images with pseudo-lesions per validation; more would hardly change the AUROC
MAX_PIXELS = MAX_IMAGES << 20  # in all of these images: fewer are kept if they are larger than 1024 px
PER_IMAGE = 8  # maximum copies of one image, if few are held out: a validation takes at most nine times as long
DIGESTED = 32  # minimum number of rows and columns that enter an image's digest (all, if there are fewer)


class _Kept(NamedTuple):
    """An image (3, H, W) uint8 of the sample, with its digest and content box."""

    digest: int
    image: Tensor
    content: list[int]


class PseudoLesions:
    """Pastes pseudo-lesions into a sample of the held-out images, the same in every validation.

    The sample and its lesions are a function of the seed and of the pixels of the images. They depend neither on
    batches nor on ranks, and the loader does not have to number its images.

    Args:
        gather: Function from this rank's value to a list of the values of all ranks. If all ranks see the same images,
            pass a function that returns only this rank's value.
    """

    def __init__(self, gather: Callable[[Any], list[Any]] = gather_ranks) -> None:
        self._gather = gather
        self._kept: list[_Kept] = []
        self._batch = 1
        self._max_images = MAX_IMAGES

    def add(self, images: Tensor, content: Tensor | None = None) -> None:
        """Adds held-out images (B, 3, H, W) in [0, 1] and their content boxes (B, 4); few are kept, on the CPU."""
        height, width = images.shape[-2:]
        content = whole(len(images), (height, width), images.device) if content is None else content
        self._batch, self._max_images = (
            max(self._batch, len(images)),
            max(1, min(MAX_IMAGES, MAX_PIXELS // (height * width))),
        )
        limit = self._kept[-1].digest if len(self._kept) >= self._max_images else math.inf
        digests = _digests(images)
        chosen = [index for index, digest in enumerate(digests) if digest < limit]
        boxes = content.tolist()
        self._kept += [_Kept(digests[index], _grey_levels(images[index]).cpu(), boxes[index]) for index in chosen]
        self._kept = sorted(self._kept, key=lambda kept: kept.digest)[: self._max_images]

    def paste(self, seed: int) -> Iterator[Pasted]:
        """Yields this rank's share of the images with lesions, on the CPU, and discards the sample.

        Yields:
            Images (N, 3, H, W), at most as many as in the largest batch that was added; masks of their lesions
            (N, H, W) bool; and their content boxes (N, 4), which contain the lesions.
        """
        yield from _batches(self._pasted(seed), self._batch)

    def _pasted(self, seed: int) -> Iterator[Pasted]:
        """Yields the copies of one image at a time."""
        kept, self._kept = self._kept, []
        everyone = sorted(digest for share in self._gather([one.digest for one in kept]) for digest in share)
        chosen = everyone[: self._max_images]
        draws = min(PER_IMAGE, self._max_images // max(len(chosen), 1))
        for digest, image, (top, left, bottom, right) in kept:
            if digest <= chosen[-1] and min(bottom - top, right - left) >= MIN_SIDE:
                state = np.random.SeedSequence((seed, digest)).generate_state(1, np.uint64)
                generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
                pasted = (image.float() / 255).repeat(draws, 1, 1, 1)
                masks = torch.zeros_like(pasted[:, 0], dtype=torch.bool)
                inside = ..., slice(top, bottom), slice(left, right)
                pasted[inside], masks[inside] = paste_lesions(pasted[inside], generator)
                boxes = torch.tensor([[top, left, bottom, right]]).expand(draws, -1)
                yield pasted, masks, boxes

    def measure(self, evaluate: Evaluate, normal: Tensor, seed: int) -> dict[str, float]:
        """Measures the separation of images with and without lesions. Every rank must call this method.

        Args:
            evaluate: Function from images (N, 3, H, W) and content boxes (N, 4), on the CPU, to `scores` (N,) and
                `maps` (N, H, W), both >= 0.
            normal: Scores of the unchanged held-out images of all ranks, (M,).
            seed: Seed of the lesions.

        Returns:
            `pseudo_auroc` of the scores, and `pseudo_pixel_auroc` of the map values inside and outside the lesions,
            within the content. NaN if scores or maps are not finite.
        """
        scores, counts = [torch.empty(0)], torch.zeros(2, BINS, dtype=torch.int64)
        for images, masks, content in self.paste(seed):
            output = evaluate(images, content)
            scores.append(output["scores"].float().cpu())
            maps, shown = output["maps"].float().cpu(), pixels_within(content, images.shape[-2:])
            counts += torch.stack([_count(maps[shown & (masks == inside)]) for inside in (False, True)])
        gathered = self._gather((torch.cat(scores), counts.to_sparse()))
        total = torch.stack([share.to_dense() for _, share in gathered]).sum(dim=0)
        return {
            "pseudo_auroc": auroc(normal, torch.cat([share for share, _ in gathered])),
            "pseudo_pixel_auroc": _area(*total[:, total.any(dim=0)].double().numpy()),
        }


def _batches(parts: Iterator[Pasted], size: int) -> Iterator[Pasted]:
    """Regroups tensors (n, ...) into batches of the given size; the last batch may be smaller."""
    waiting: list[Pasted] = []
    for part in parts:
        waiting.append(part)
        while sum(len(one[0]) for one in waiting) >= size:
            images, masks, boxes = (torch.cat(tensors) for tensors in zip(*waiting, strict=True))
            yield images[:size], masks[:size], boxes[:size]
            waiting = [(images[size:], masks[size:], boxes[size:])]
    if sum(len(one[0]) for one in waiting):
        images, masks, boxes = (torch.cat(tensors) for tensors in zip(*waiting, strict=True))
        yield images, masks, boxes


def auroc(normal: Tensor, abnormal: Tensor) -> float:
    """Returns the AUROC of normal (M,) and abnormal (N,) scores, with ties counted half; NaN if one is not finite."""
    scores = torch.cat([normal.float().cpu(), abnormal.float().cpu()])
    if not bool(scores.isfinite().all()):
        return math.nan
    labels = np.repeat((0, 1), (len(normal), len(abnormal)))
    return _area(*score_counts(labels, scores.double().numpy()))


def pseudo_seed(trainer: Trainer) -> int:
    """Returns the seed of the trainer's data module; 0 with plain loaders."""
    return int(getattr(getattr(trainer, "datamodule", None), "seed", 0))


def _area(normal: Floats, abnormal: Floats) -> float:
    return float(partial_auc(normal, abnormal)) if normal.any() and abnormal.any() else math.nan


def _count(values: Tensor) -> Tensor:
    """Returns the histogram of values (N,); all 0 if a value is not finite because training failed."""
    return count_values(values) if bool(values.isfinite().all()) else torch.zeros(BINS, dtype=torch.int64)


def _digests(images: Tensor) -> list[int]:
    """Returns a hash in [0, 2^64) of each image, from a subset of its pixels in 8-bit grey levels."""
    step = max(1, min(images.shape[-2:]) // DIGESTED)
    levels = _grey_levels(images[:, :, ::step, ::step]).cpu().numpy()
    return [int.from_bytes(hashlib.blake2b(level.tobytes(), digest_size=8).digest(), "big") for level in levels]


def _grey_levels(images: Tensor) -> Tensor:
    """Converts images in [0, 1] to 8 bits, which takes a quarter of the memory."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)
