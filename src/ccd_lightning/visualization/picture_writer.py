"""Writing of overlays and maps of predicted images."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ccd_lightning.data.images import open_rgb
from ccd_lightning.data.placement import Placement
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.sources import file_of
from ccd_lightning.visualization.overlays import Maps, draw_overlay
from ccd_lightning.visualization.volume_maps import write_slice
from ccd_lightning.writing import short_name

MapFormat = Literal["png", "npy", "tiff", "nifti", "none"]
FULL = 65535
TOP = 8  # the brightest grey of a map stands for this multiple of the pixel threshold
OVERLAYS, MAPS = "overlays", "maps"


def encode_map(anomaly_map: Maps, top: float) -> Image.Image:
    """Encodes a map (H, W) as 16-bit grey: `value = grey * top / 65535`, rounded. 65535 also means larger values."""
    return Image.fromarray((anomaly_map.clip(0, top) * (FULL / top)).round().astype(np.uint16))


@dataclass(frozen=True)
class PictureWriter:
    """Writes the pictures of one image after another.

    Attributes:
        folder: Folder with the subfolders `overlays` and `maps`, in which files have the names and subfolders of the
            images.
        base: Common folder of all images.
        preprocessing: Preprocessing of the images, which defines the size of the maps.
        threshold: Threshold of image scores, NaN if there is none.
        limits: Median and threshold of the maps of normal images. If they are NaN, there are no overlays.
        maps: File format of the maps.
        overlays: Whether to write overlays.
    """

    folder: Path
    base: str
    preprocessing: Preprocessing
    threshold: float
    limits: tuple[float, float]
    maps: MapFormat
    overlays: bool

    @property
    def draws(self) -> bool:
        """Whether overlays are written."""
        return self.overlays and not math.isnan(self.limits[1])

    @property
    def top(self) -> float:
        """Value of the map at the brightest grey of a 16-bit PNG."""
        return TOP * self.limits[1]

    def write(self, path: str, score: float, anomaly_map: Maps, placement: Placement) -> None:
        """Writes the requested pictures of one image. Not atomic: after an interruption, a file may be incomplete.

        Args:
            path: Path of the image.
            score: Score of the image.
            anomaly_map: Anomaly map (H, W) of the working image.
            placement: Placement of the image in the working image.

        Raises:
            UserError: If the image cannot be read again.
        """
        if self.maps == "npy":
            np.save(self._place(MAPS, f"{path}.npy"), anomaly_map)
        elif self.maps == "png":
            encode_map(anomaly_map, self.top).save(self._place(MAPS, f"{path}.png"))
        elif self.maps == "tiff":
            Image.fromarray(placement.restore(anomaly_map)).save(self._place(MAPS, f"{path}.tiff"))
        elif self.maps == "nifti":
            volume = self._place(MAPS, f"{file_of(Path(path))}.nii")
            write_slice(volume, Path(path), placement.restore(anomaly_map))
        if self.draws:
            decision = "abnormal" if score > self.threshold else "normal"
            label = f"{decision}: score {score:.4g}, threshold {self.threshold:.4g}"
            image = open_rgb(Path(path), self.preprocessing.window)
            overlay = draw_overlay(image, anomaly_map, placement, self.limits, label)
            overlay.save(self._place(OVERLAYS, f"{path}.png"))

    def description(self) -> dict[str, Any]:
        """Returns a description of the maps' values and coordinates for maps.json."""
        scale = {"top": self.top, "value": f"grey * top / {FULL}; {FULL} stands for top or more"}
        return {
            "format": self.maps,
            **(scale if self.maps == "png" else {"value": "as it is, float32"}),
            "of": "the original image" if self.maps in ("tiff", "nifti") else "the image at working size",
            "normal_median": _number(self.limits[0]),
            "normal_threshold": _number(self.limits[1]),
            "size": self.preprocessing.size,
            "crop": self.preprocessing.crop or (0, 0, 1, 1),
            "fit": self.preprocessing.fit,
        }

    def _place(self, subfolder: str, path: str) -> Path:
        inside = Path(os.path.relpath(os.path.abspath(path), self.base))
        file = self.folder / subfolder / inside.with_name(short_name(inside.name))
        file.parent.mkdir(parents=True, exist_ok=True)
        return file


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
