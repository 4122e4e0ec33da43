"""PMSACL's fixed centres of classes."""

from __future__ import annotations

from torch import Tensor


def centred(features: Tensor, centres: Tensor, classes: Tensor) -> Tensor:
    """What is left of features without the centres of their classes: f(a_n(x)) - c_n.

    Normalised, as the contrastive loss does, it is PMSACL's f~_n(x) (Tian et al., MedIA 2023, as it is summarised in
    public).

    Args:
        features: (N, D) of images under strong augmentations.
        centres: (K, D) of the classes.
        classes: (N,) in 0..K - 1, which strong augmentation each image got.

    Returns:
        (N, D).
    """
    return features - centres[classes]


def centring_loss(features: Tensor, centres: Tensor, classes: Tensor) -> Tensor:
    """Mean squared distance from the centres of the classes, which stay where they are.

        L_ctr = mean |f(a_n(x)) - c_n|^2

    (Tian et al., MedIA 2023, as it is summarised in public.)

    Args:
        features: (N, D) of images under strong augmentations.
        centres: (K, D) of the classes.
        classes: (N,) in 0..K - 1.

    Returns:
        Scalar >= 0; the squares are summed over D.
    """
    return centred(features, centres, classes).square().sum(dim=1).mean()
