"""Scores image files with an exported detector; needs onnxruntime, numpy and pillow, and nothing else.

python examples/score_onnx.py runs/padim_folder/latest/detector.onnx IMAGE ...

Prints path, score and decision of each image, and writes its anomaly map over it into the current folder, with the
colours and the line of `ccd predict` and the report.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

Metadata = Mapping[str, str]
Box = tuple[int, int, int, int]  # left, top, right, bottom


def open_rgb(file: str | IO[bytes], metadata: Metadata) -> Image.Image:
    """Opens an image upright, as 8-bit RGB."""
    image: Image.Image = Image.open(file)
    if image.format not in ("MPO", "PSD") and getattr(image, "n_frames", 1) > 1:
        sys.exit(f"{file}: several pages or frames; split it into one file per image")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # more than 8 bits
        window = json.loads(metadata["window"])
        if isinstance(window, str) and window != "full":
            sys.exit(f"{file}: shown by the window that each file names, which this script does not read")
        low, high = (0, 65535) if window in (None, "full") else window
        image = Image.fromarray(np.rint(255 * ((np.asarray(image) - low) / (high - low)).clip(0, 1)).astype(np.uint8))
    return image.convert("RGB")


def place(image: Image.Image, metadata: Metadata) -> tuple[Box, Box]:
    """The part of the image that the detector looks at, and where in the working image it lies, in pixels of each."""
    crop = json.loads(metadata["crop"]) or (0, 0, 1, 1)
    if crop == "auto":
        sys.exit("This detector looks for the content of each frame (data.crop auto), which this script cannot do.")
    width, height = image.size
    left, top, right, bottom = (round(share * side) for share, side in zip(crop, 2 * (width, height), strict=True))
    across, down = right - left, bottom - top
    high, wide = working_size(metadata)
    if metadata["fit"] == "crop":
        kept_across = min(across, max(1, round(down * wide / high)))
        kept_down = min(down, max(1, round(across * high / wide)))
        left, top = left + (across - kept_across) // 2, top + (down - kept_down) // 2
        right, bottom = left + kept_across, top + kept_down
    target = (0, 0, wide, high)
    if metadata["fit"] == "letterbox":
        scale = min(wide / across, high / down)
        inner = [max(1, min(most, round(scale * side))) for most, side in ((wide, across), (high, down))]
        x, y = (wide - inner[0]) // 2, (high - inner[1]) // 2
        target = (x, y, x + inner[0], y + inner[1])
    return (left, top, right, bottom), target


def working_size(metadata: Metadata) -> tuple[int, int]:
    """Height and width, in pixels."""
    sides = [int(side) for side in metadata["size"].split(" x ")]
    return sides[0], sides[-1]


def draw_overlay(image: Image.Image, anomaly_map: NDArray[np.float32], metadata: Metadata) -> Image.Image:
    """Lays a map over its image; a line surrounds what is higher than nearly all maps of normal images."""
    limits = json.loads(metadata["map_limits"])
    if limits is None:
        return image  # the run was not validated, so its maps have no scale
    low, threshold = limits
    high = low + (threshold - low) / 0.75
    box, (x, y, x_end, y_end) = place(image, metadata)
    image, anomaly_map = image.copy(), anomaly_map[y:y_end, x:x_end]
    levels = Image.fromarray((255 * ((anomaly_map - low) / (high - low or 1.0)).clip(0, 1)).round().astype(np.uint8))
    levels = levels.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BILINEAR)
    colours = levels.copy()
    colours.putpalette(bytes.fromhex(metadata["map_colours"]))
    opacity = levels.point([min(round(0.75 * level**2 / 255), 128) for level in range(256)])
    image.paste(colours.convert("RGB"), box, opacity)
    inside = core = levels.point([255 * (level > 255 * 0.75) for level in range(256)])
    for _ in range(max(1, min(inside.size) // 300)):
        core = core.filter(ImageFilter.MinFilter(3))
    image.paste((0, 255, 255), box, ImageChops.subtract(inside, core))
    if box != (0, 0, *image.size):
        frame = (box[0], box[1], box[2] - 1, box[3] - 1)
        ImageDraw.Draw(image).rectangle(frame, outline=(160, 160, 160), width=max(1, min(image.size) // 400))
    return image


class Result(NamedTuple):
    """What the detector says of an image.

    Attributes:
        score: Higher where less normal.
        decision: "normal" or "abnormal"; empty where the run has no threshold.
        map: Of the working image, (height, width).
    """

    score: float
    decision: str
    map: NDArray[np.float32]


class Detector:
    """An exported detector.

    Args:
        model: The .onnx file.
    """

    def __init__(self, model: str) -> None:
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.metadata: Metadata = self.session.get_modelmeta().custom_metadata_map

    def score(self, image: Image.Image) -> Result:
        """Scores one image, brought to working size as in training."""
        source, (x, y, x_end, y_end) = place(image, self.metadata)
        height, width = working_size(self.metadata)
        working = Image.new("RGB", (width, height))
        working.paste(image.crop(source).resize((x_end - x, y_end - y), Image.Resampling.BILINEAR), (x, y))
        pixels = np.asarray(working).transpose(2, 0, 1)[None]  # (1, 3, height, width) uint8
        if self.metadata["input"].startswith("float"):
            pixels = pixels.astype(np.float32) / 255
        given = {"images": pixels, "content": np.array([[y, x, y_end, x_end]])}
        given = {one.name: given[one.name] for one in self.session.get_inputs()}  # content with a letterbox alone
        names = [output.name for output in self.session.get_outputs()]
        found = dict(zip(names, self.session.run(names, given), strict=True))
        decision = "" if "decision" not in found else "abnormal" if found["decision"][0] else "normal"
        return Result(float(found["score"][0]), decision, found["map"][0])


def main(model: str, *files: str) -> None:
    """Scores the files."""
    detector = Detector(model)
    for file in files:
        image = open_rgb(file, detector.metadata)
        found = detector.score(image)
        print(file, f"{found.score:.6g}", found.decision)
        draw_overlay(image, found.map, detector.metadata).save(f"{Path(file).stem}_map.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
