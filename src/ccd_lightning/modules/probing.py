"""Validates an encoder's probe: does it detect images that are not normal? No labels are used."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ccd_lightning.models.probe import separation
from ccd_lightning.modules.normal_images import NormalImages
from ccd_lightning.modules.pseudo_lesions import PseudoLesions, auroc

MAX_IMAGES = 256  # approximate number of held-out images that those with pseudo-lesions are compared with

Distances = Callable[[Tensor], Tensor]


def probe_held_out(whole: Distances, part: Distances, data: NormalImages, device: torch.device) -> dict[str, float]:
    """Compares the distances of artificially abnormal images with those of held-out normal images.

    Args:
        whole: Function from whole images (N, 3, H, W) in [0, 1] to distances (N,).
        part: The same for the encoder's inputs: the images themselves or their tiles.
        data: Data module with the held-out images, the same on every rank.
        device: Device to which images are moved.

    Returns:
        `pseudo_auroc` for images with pseudo-lesions, if images are held out; `auroc` and `separation` for strongly
        augmented images, if the data have a family of strong augmentations.
    """
    found = _probe_pseudo_lesions(whole, data, device)
    if data.distributions in (None, 1):
        return found
    probed = [(part(images), index) for images, index in data.held_out_distributions(device)]
    distances, index = (torch.cat(parts) for parts in zip(*probed, strict=True))
    return found | separation(distances, index > 0)


def _probe_pseudo_lesions(distances: Distances, data: NormalImages, device: torch.device) -> dict[str, float]:
    lesions, normal = PseudoLesions(lambda own: [own]), []
    for images, content in data.normal_images(device, at_most=MAX_IMAGES)[1]:
        lesions.add(images, content)
        normal.append(distances(images))
    abnormal = [distances(images.to(device)) for images, _, _ in lesions.paste(data.seed)]
    return {"pseudo_auroc": auroc(torch.cat(normal), torch.cat(abnormal))} if normal else {}
