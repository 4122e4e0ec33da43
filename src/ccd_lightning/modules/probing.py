"""What an encoder's probe is asked in validation: would it notice what is not normal? No label is read for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ccd_lightning.models.probe import separation
from ccd_lightning.modules.normal_images import NormalImages
from ccd_lightning.modules.pseudo_lesions import PseudoLesions, auroc

AT_MOST = 256  # held-out images, about, that those with pseudo-lesions are compared with

Distances = Callable[[Tensor], Tensor]


def probe_held_out(whole: Distances, part: Distances, data: NormalImages, device: torch.device) -> dict[str, float]:
    """How far what stands for abnormal images is from normal ones, compared with held-out images.

    Args:
        whole: From whole images (N, 3, H, W) in [0, 1] to their distances (N,).
        part: From what the encoder is shown of them, the images themselves or their tiles.
        data: Gives the held-out images, the same on every rank.
        device: Where images are put.

    Returns:
        `pseudo_auroc`, of the same images with pseudo-lesions, where any are held out; `auroc` and `separation`, of
        the same images strongly augmented, where the data have a family of strong augmentations.
    """
    found = _probe_pseudo_lesions(whole, data, device)
    if data.distributions in (None, 1):
        return found
    probed = [(part(images), index) for images, index in data.held_out_distributions(device)]
    distances, index = (torch.cat(parts) for parts in zip(*probed, strict=True))
    return found | separation(distances, index > 0)


def _probe_pseudo_lesions(distances: Distances, data: NormalImages, device: torch.device) -> dict[str, float]:
    lesions, normal = PseudoLesions(lambda own: [own]), []
    for images, content in data.normal_images(device, at_most=AT_MOST)[1]:
        lesions.add(images, content)
        normal.append(distances(images))
    abnormal = [distances(images.to(device)) for images, _, _ in lesions.paste(data.seed)]
    return {"pseudo_auroc": auroc(torch.cat(normal), torch.cat(abnormal))} if normal else {}
