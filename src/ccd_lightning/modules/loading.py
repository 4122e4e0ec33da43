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
    """Loads a detector for scoring. Only its checkpoint is read.

    Args:
        run_or_file: Folder of a run, a folder of runs (its newest finished run is used), or a checkpoint file.
        trust: Whether to import the detector's class from the module that the checkpoint names, which runs that
            module's code. Otherwise, only the detectors of this package and classes that are already imported work.

    Returns:
        The detector in evaluation mode, on the CPU. `detector(images)` takes images (B, 3, H, W) in [0, 1] and returns
        scores (B,) and anomaly maps (B, H, W). Images that score above `detector.threshold` are abnormal.
        `detector.read(*files)` reads such images from files.

    Raises:
        UserError: If there is no such run, it is not a detector's, or its class is unknown and not trusted.
    """
    return open_detector(run_or_file, trust)
