"""Loads a fitted detector in Python."""

from __future__ import annotations

from pathlib import Path

from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.modules.ensemble import Ensemble
from ccd_lightning.modules.igd import IGD
from ccd_lightning.modules.mahalanobis import Mahalanobis
from ccd_lightning.modules.neighbours import Neighbours
from ccd_lightning.modules.padim import PaDiM
from ccd_lightning.modules.rebuilding import open_detector

DETECTORS: tuple[type[OneClassDetector], ...] = (PaDiM, Neighbours, Mahalanobis, IGD, Ensemble)


def load(run_or_file: str | Path, trust: bool = False) -> OneClassDetector:
    """Opens a detector for scoring; nothing but its checkpoint is read.

    Args:
        run_or_file: A run's folder, a folder of runs (then its newest finished one), or a checkpoint file.
        trust: Whether to import the detector's class where the checkpoint names, which runs that module's code. Without
            it, the project's detectors work, and your own if their class is imported already.

    Returns:
        The detector in evaluation mode, on the CPU: `detector(images)` takes (B, 3, H, W) in [0, 1] and returns scores
        (B,) and anomaly maps (B, H, W); `detector.threshold` separates the scores, and `detector.read(*files)` makes
        such images of files.

    Raises:
        UserError: If there is no such run, it is not a detector's, or its class is unknown and not trusted.
    """
    return open_detector(run_or_file, trust)
