"""Overlays and maps of predicted images as files."""

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
TOP = 8  # times the threshold of pixels is the brightest grey of a map
OVERLAYS, MAPS = "overlays", "maps"


def encode_map(anomaly_map: Maps, top: float) -> Image.Image:
    """A map (H, W) as 16-bit greys: `value = grey * top / 65535`, to half of a grey; 65535 stands for more, too."""
    return Image.fromarray((anomaly_map.clip(0, top) * (FULL / top)).round().astype(np.uint16))


@dataclass(frozen=True)
class PictureWriter:
    """Writes the pictures of one image after another.

    Attributes:
        folder: Where `overlays` and `maps` are; below them files are named and nested as the images are.
        base: The folder that all images are in.
        preprocessing: What brought images to the maps' size.
        threshold: Of image scores; NaN where there is none.
        limits: Median and threshold of normal images' maps; without them (NaN) there are no overlays.
        maps: How to write the maps.
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
        """Whether there are overlays."""
        return self.overlays and not math.isnan(self.limits[1])

    @property
    def top(self) -> float:
        """The map's value at the brightest grey of a 16-bit PNG."""
        return TOP * self.limits[1]

    def write(self, path: str, score: float, anomaly_map: Maps, placement: Placement) -> None:
        """Writes what is asked for of one image, in place: an image whose row is not written yet may lack a part of it.

        Args:
            path: The image.
            score: Of the image.
            anomaly_map: (H, W), of the working image.
            placement: Where the image lies in there.

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
        """What the maps' values and places are, for maps.json."""
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
