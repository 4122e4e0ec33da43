"""The contrastive distribution loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def nt_xent(
    first: Tensor, second: Tensor, temperature: float, classes: Tensor | None = None, alpha: float = 1.0
) -> Tensor:
    """Returns the NT-Xent loss of N instances with two views each; both views are anchors.

    With normalised z = (first, second), s_ij = z_i . z_j / temperature and j(i) the other view of i:

        L = 1 / 2N  sum_i  -log( exp(s_i,j(i)) / sum_{k != i} exp(s_ik) )

    An instance is one image under one strong augmentation, so the same image under another augmentation is a negative.
    This is CCD's contrastive distribution loss (Tian et al., MICCAI 2021, eq. 1; NT-Xent: Chen et al., ICML 2020,
    eq. 1).

    With classes y and alpha, s_ik is also divided by alpha if y_i = y_k: pairs of the same class, including both views
    of an instance, have alpha times the temperature (PMSACL, Tian et al., MedIA 2023, according to its public summary).
    alpha = 1 has no effect.

    Args:
        first: Projections of the first views, of any scale, (N, D).
        second: Projections of the second views in the same order, (N, D).
        temperature: Temperature, > 0.
        classes: Classes of the instances, (N,); None if alpha is 1.
        alpha: Factor of the temperature for pairs of the same class, > 0.

    Returns:
        Scalar in nats; log(2N - 1) if all projections are one point and alpha is 1.

    Raises:
        ValueError: If the shapes differ, or the temperature or alpha is not positive.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"Expected two (N, D) tensors of one shape, got {tuple(first.shape)}, {tuple(second.shape)}")
    if temperature <= 0 or alpha <= 0:
        raise ValueError(f"temperature and alpha must be positive, got {temperature} and {alpha}")
    count = len(first)
    z = _on_sphere(torch.cat([first, second]))  # (2N, D)
    with torch.autocast(z.device.type, enabled=False):  # bfloat16 is too coarse before the division by the temperature
        similarity = z @ z.T / temperature  # (2N, 2N)
        if classes is not None:
            kinds = classes.repeat(2)
            similarity = similarity / torch.where(kinds[:, None] == kinds, alpha, 1.0).to(similarity)
    itself = torch.eye(2 * count, dtype=torch.bool, device=z.device)
    similarity = similarity.masked_fill(itself, float("-inf"))
    partner = torch.arange(2 * count, device=z.device).roll(count)  # (2N,)
    return functional.cross_entropy(similarity, partner)


def alignment(first: Tensor, second: Tensor) -> Tensor:
    """Returns the mean squared distance between the two views of an instance (Wang & Isola, ICML 2020, alpha = 2).

    Args:
        first: Projections of the first views, (N, D); they are normalised inside.
        second: Projections of the second views in the same order, (N, D).

    Returns:
        Scalar in [0, 4]; 0 if both views of every instance have the same projection.
    """
    return (_on_sphere(first) - _on_sphere(second)).square().sum(dim=1).mean()


def uniformity(projections: Tensor) -> Tensor:
    """Returns the logarithm of the mean Gaussian potential of all pairs (Wang & Isola, ICML 2020, with t = 2).

    Args:
        projections: Projections, (N, D), N > 1; they are normalised inside.

    Returns:
        Scalar in [-8, 0]; 0 if all projections are one point, about -4 if they cover the sphere evenly.
    """
    return torch.pdist(_on_sphere(projections)).square().mul(-2).exp().mean().log()


def _on_sphere(projections: Tensor) -> Tensor:
    """Normalises rows, in at least float32, because half precision is too coarse for small distances."""
    return functional.normalize(projections.to(torch.promote_types(projections.dtype, torch.float32)), dim=1)
