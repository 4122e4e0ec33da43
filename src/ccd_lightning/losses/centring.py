"""PMSACL's centring loss, with fixed class centres."""

from __future__ import annotations

from torch import Tensor


def centred(features: Tensor, centres: Tensor, classes: Tensor) -> Tensor:
    """Subtracts the centres of their classes from features: f(a_n(x)) - c_n.

    Normalised, as in the contrastive loss, this is PMSACL's f~_n(x) (Tian et al., MedIA 2023, according to its public
    summary).

    Args:
        features: Features of images under strong augmentations, (N, D).
        centres: Centres of the classes, (K, D).
        classes: Strong augmentation of each image, (N,) in 0..K - 1.

    Returns:
        Differences (N, D).
    """
    return features - centres[classes]


def centring_loss(features: Tensor, centres: Tensor, classes: Tensor) -> Tensor:
    """Returns the mean squared distance from the fixed centres of the classes.

        L_ctr = mean |f(a_n(x)) - c_n|^2

    (Tian et al., MedIA 2023, according to its public summary.)

    Args:
        features: Features of images under strong augmentations, (N, D).
        centres: Centres of the classes, (K, D).
        classes: Strong augmentation of each image, (N,) in 0..K - 1.

    Returns:
        Scalar >= 0; the squares are summed over D.
    """
    return centred(features, centres, classes).square().sum(dim=1).mean()
