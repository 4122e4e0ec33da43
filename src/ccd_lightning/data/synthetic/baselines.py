"""Baselines without any learning, on a folder of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ccd_lightning.errors import UserError
from ccd_lightning.metrics.threshold_metrics import partial_auc, score_counts

Floats = npt.NDArray[np.floating]


def baselines(root: Path) -> dict[str, float]:
    """Computes the image AUROC of two detectors that learn nothing. A data set on which they do well is too easy.

    Args:
        root: Folder in the common layout, with all images of one size.

    Returns:
        "nearest_pixel": distance to the nearest training image, pixel by pixel. "mean_colour": Mahalanobis distance
        of the mean colour from those of the training images. 0.5 is chance.

    Raises:
        UserError: If there are fewer than two training images, or not both normal and abnormal test images.
    """
    train = _read(root / "train" / "good")
    folders = sorted({path.parent for path in root.glob("test/*/*.png")})
    if len(train) < 2 or len({folder.name == "good" for folder in folders}) < 2:
        raise UserError(
            f"{root}: the baselines need two training images, a normal and an abnormal test image."
            " Make the folder with larger counts."
        )
    tests = [_read(folder) for folder in folders]
    test = np.concatenate(tests)
    labels = np.repeat([int(folder.name != "good") for folder in folders], [len(images) for images in tests])
    distances = {"nearest_pixel": _nearest_pixel(train, test), "mean_colour": _mean_colour(train, test)}
    return {
        name: float(partial_auc(*score_counts(labels, found.astype(np.float64)))) for name, found in distances.items()
    }


def _nearest_pixel(train: Floats, test: Floats) -> Floats:
    """Computes the squared L2 distance to the nearest training image: (N, S, S, 3), (M, S, S, 3) -> (M,)."""
    flat, reference = test.reshape(len(test), -1), train.reshape(len(train), -1)
    squared: Floats = (flat**2).sum(1)[:, None] - 2 * flat @ reference.T + (reference**2).sum(1)
    return np.asarray(squared.min(1))


def _mean_colour(train: Floats, test: Floats) -> Floats:
    """Computes the squared Mahalanobis distance of the mean colour: (N, S, S, 3), (M, S, S, 3) -> (M,)."""
    colour, normal = test.mean((1, 2)), train.mean((1, 2))
    centred = colour - normal.mean(0)
    inverse = np.linalg.pinv(np.cov(normal.T), rcond=1e-6, hermitian=True)  # the covariance of grey images is singular
    return np.asarray(np.einsum("nc,cd,nd->n", centred, inverse, centred))


def _read(folder: Path) -> npt.NDArray[np.float32]:
    images = [np.asarray(Image.open(path).convert("RGB"), np.float32) / 255 for path in sorted(folder.glob("*.png"))]
    return np.stack(images) if images else np.zeros((0, 1, 1, 3), np.float32)
