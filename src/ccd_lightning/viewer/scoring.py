"""Anomaly maps of single images, computed by the run's own detector on request.

A test stores no maps, because those of 10,000 images would take gigabytes.
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ccd_lightning.data.images import read_placed
from ccd_lightning.data.placement import Placement
from ccd_lightning.errors import UserError

if TYPE_CHECKING:
    from ccd_lightning.modules.detector import OneClassDetector
    from ccd_lightning.visualization.overlays import Maps


class ScoredMap(NamedTuple):
    """An anomaly map with the image's score.

    Attributes:
        score: Current score of the image.
        anomaly_map: Anomaly map (H, W) of the working image.
        placement: Placement of the image in the working image.
        limits: Median and threshold of the maps of normal images.
    """

    score: float
    anomaly_map: Maps
    placement: Placement
    limits: tuple[float, float]


class Scorer:
    """Scores one image at a time.

    Args:
        checkpoint: Run or checkpoint file of the detector, None if unknown.
        trust: Whether to import the class that the checkpoint names (`load`).
    """

    def __init__(self, checkpoint: Path | None, trust: bool = False) -> None:
        self.checkpoint = checkpoint
        self.trust = trust
        self.lock = threading.RLock()  # a single image already uses the whole processor
        self._detector: OneClassDetector | None = None
        self._refusal = "" if checkpoint else "It is not known which run scored these images: give --ckpt_path RUN."

    def detector(self) -> OneClassDetector:
        """Returns the detector, which is loaded at the first call.

        Raises:
            UserError: If there is none, as after a test of an encoder.
        """
        with self.lock:
            if self._detector is None and not self._refusal and self.checkpoint:
                self._detector, self._refusal = _open(self.checkpoint, self.trust)
            if self._detector is None:
                raise UserError(self._refusal)
            return self._detector

    def refusal(self) -> str:
        """Returns why there are no maps; "" if there are, or if the detector has not been loaded yet."""
        return self._refusal

    def threshold(self) -> float:
        """Returns the detector's threshold, NaN if there is none."""
        try:
            return float(self.detector().threshold)
        except UserError:
            return math.nan

    def score(self, path: Path) -> ScoredMap:
        """Scores an image.

        Raises:
            UserError: If there is no detector, or the image cannot be read.
        """
        import torch

        from ccd_lightning.data.loading import unit_range

        with self.lock:
            detector = self.detector()
            assert detector.preprocessing is not None  # checked by `_open`
            placed = read_placed(path, detector.preprocessing)
            images = unit_range(torch.tensor(placed.pixels).permute(2, 0, 1)[None].contiguous())
            content = torch.tensor([placed.placement.content])
            with torch.inference_mode():
                scores, maps = detector(images, content)
            low, high = detector.map_limits.tolist()
            return ScoredMap(float(scores[0]), maps[0].float().numpy(), placed.placement, (low, high))


def _open(checkpoint: Path, trust: bool) -> tuple[OneClassDetector | None, str]:
    """Loads the detector, or returns why there is none that can compute maps."""
    from ccd_lightning.modules.loading import load

    try:
        detector = load(checkpoint, trust)
    except UserError as error:
        return None, str(error)
    if detector.preprocessing is None:
        return None, f"{checkpoint}: it does not contain the preprocessing of the images."
    return detector, ""
