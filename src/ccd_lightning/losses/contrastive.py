"""The contrastive distribution loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def nt_xent(
    first: Tensor, second: Tensor, temperature: float, classes: Tensor | None = None, alpha: float = 1.0
) -> Tensor:
    """NT-Xent over N instances with two views each, both views as anchors.

    With z = (first, second) normalised, s_ij = z_i . z_j / temperature and j(i) the other view of i:

        L = 1 / 2N  sum_i  -log( exp(s_i,j(i)) / sum_{k != i} exp(s_ik) )

    An instance is one image under one strong augmentation, so the same image under another one is a negative; that
    is CCD's contrastive distribution loss (Tian et al., MICCAI 2021, eq. 1; NT-Xent: Chen et al., ICML 2020, eq. 1).

    With classes y and alpha, s_ik is divided by alpha too where y_i = y_k: views of one class, the two of an instance
    among them, are then attracted and pushed apart as at alpha times the temperature, all others as before (PMSACL,
    Tian et al., MedIA 2023, as it is summarised in public). With alpha = 1 nothing changes.

    Args:
        first: (N, D) projections of the first views, any scale.
        second: (N, D) projections of the second views, in the same order.
        temperature: > 0.
        classes: (N,) of the instances; None if alpha is 1.
        alpha: > 0.

    Returns:
        Scalar in nats; log(2N - 1) when all projections are one point and alpha is 1.

    Raises:
        ValueError: If the shapes differ, or the temperature or alpha is not positive.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"Expected two (N, D) tensors of one shape, got {tuple(first.shape)}, {tuple(second.shape)}")
    if temperature <= 0 or alpha <= 0:
        raise ValueError(f"temperature and alpha must be positive, got {temperature} and {alpha}")
    count = len(first)
    z = _on_sphere(torch.cat([first, second]))  # (2N, D)
    with torch.autocast(z.device.type, enabled=False):  # bfloat16 would round what is divided by the temperature
        similarity = z @ z.T / temperature  # (2N, 2N)
        if classes is not None:
            kinds = classes.repeat(2)
            similarity = similarity / torch.where(kinds[:, None] == kinds, alpha, 1.0).to(similarity)
    itself = torch.eye(2 * count, dtype=torch.bool, device=z.device)
    similarity = similarity.masked_fill(itself, float("-inf"))
    partner = torch.arange(2 * count, device=z.device).roll(count)  # (2N,)
    return functional.cross_entropy(similarity, partner)


def alignment(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared distance between the two views of an instance (Wang & Isola, ICML 2020, with alpha = 2).

    Args:
        first: (N, D) projections of the first views, normalised inside.
        second: (N, D), in the same order.

    Returns:
        Scalar in [0, 4]; 0 when both views of every instance are one point.
    """
    return (_on_sphere(first) - _on_sphere(second)).square().sum(dim=1).mean()


def uniformity(projections: Tensor) -> Tensor:
    """Logarithm of the mean Gaussian potential of all pairs (Wang & Isola, ICML 2020, with t = 2).

    Args:
        projections: (N, D), normalised inside, N > 1.

    Returns:
        Scalar in [-8, 0]; 0 when all projections are one point, about -4 when they fill the sphere evenly.
    """
    return torch.pdist(_on_sphere(projections)).square().mul(-2).exp().mean().log()


def _on_sphere(projections: Tensor) -> Tensor:
    """Rows of length 1, in float32 at least: half precision would blur small distances."""
    return functional.normalize(projections.to(torch.promote_types(projections.dtype, torch.float32)), dim=1)
