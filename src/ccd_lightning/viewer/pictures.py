"""Pictures of the page, created on request: thumbnails, images, maps, and outlines of masks."""

from __future__ import annotations

import functools
import io
import math
import os
import threading
from typing import NamedTuple

from PIL import Image, ImageFilter

from ccd_lightning.data.depth import eight_bits
from ccd_lightning.data.formats import read_picture
from ccd_lightning.errors import UserError
from ccd_lightning.viewer.cache import ByteCache
from ccd_lightning.viewer.results import ShownResults
from ccd_lightning.viewer.scoring import ScoredMap, Scorer

THUMBNAIL = 128  # px: longer side of thumbnails
LARGEST = 2048  # px: maximum longer side of the large view, as shown on screens
SMOOTH = 768  # px: minimum longer side of layers on it, so that lines and colours on small images are not coarse
MAX_BYTES = 1 << 27  # limit for cached pictures, about 20,000 thumbnails
MAPS = 16  # number of cached maps
Size = tuple[int, int]


class MapPictures(NamedTuple):
    """A map as two layers with the image's aspect ratio, and the image's current score."""

    colours: bytes
    lines: bytes
    score: float


class Pictures:
    """Creates and caches pictures. Thread-safe.

    Args:
        results: Results of the images.
        scorer: Scorer that computes their maps.

    Attributes:
        sizes: Width and height in pixels of the images that were read so far, by index, before they were reduced.
    """

    def __init__(self, results: ShownResults, scorer: Scorer) -> None:
        self.results = results
        self.scorer = scorer
        self.sizes = dict[int, Size]()
        self.kept = ByteCache(MAX_BYTES)
        self._maps = functools.lru_cache(MAPS)(lambda index: _draw_map(self.scorer.score(results.image(index))))
        self._decoders = threading.BoundedSemaphore(os.cpu_count() or 1)  # limits memory, as each image may be large

    def thumbnail(self, index: int) -> bytes:
        """Returns a JPEG whose longer side has at most `THUMBNAIL` pixels."""
        return self.kept.get(("thumbnail", index), lambda: _encode(self._read(index, THUMBNAIL), "JPEG", quality=80))

    def image(self, index: int) -> bytes:
        """Returns a PNG of the image, whose longer side has at most `LARGEST` pixels."""
        return self.kept.get(("image", index), lambda: _encode(self._read(index, LARGEST), "PNG", compress_level=1))

    def anomaly_map(self, index: int) -> MapPictures:
        """Returns PNG layers for the image. Colours are those of the report at an opacity of one half.

        Raises:
            UserError: If the image cannot be scored, or there is no range of normal maps.
        """
        with self.scorer.lock:
            return self._maps(index)  # a second request for the same map finds it in the cache

    def mask(self, index: int) -> bytes:
        """Returns a PNG layer with the outline of the mask.

        Raises:
            UserError: If there is no mask, or it cannot be read.
        """
        return self.kept.get(("mask", index), lambda: _encode(self._outline(index), "PNG"))

    def _read(self, index: int, side: int) -> Image.Image:
        """Reads an image as RGB, reduced if its longer side has more pixels than `side`."""
        path = self.results.image(index)
        with self._decoders:
            picture = read_picture(path, lambda size: bounded(size, side))
            self.sizes[index] = picture.size
            image = eight_bits(picture, path, self.results.window).convert("RGB")
            return image.resize(bounded(picture.size, side), Image.Resampling.BICUBIC, reducing_gap=2.0)

    def _outline(self, index: int) -> Image.Image:
        from ccd_lightning.data.masks import open_masks

        if not (masks := self.results.masks(index)):
            raise UserError(f"{self.results.rows[index].file}: no mask for this image.")
        with self._decoders:
            mask = Image.fromarray(open_masks(masks, self.results.image(index)))
            return outline(mask.convert("L").resize(layer_size(mask.size), Image.Resampling.NEAREST))


def bounded(size: Size, side: int) -> Size:
    """Returns the size of a picture, reduced so that its longer side has at most `side` pixels."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def layer_size(size: Size) -> Size:
    """Returns the size of a layer for an image of this size."""
    scale = max(1.0, SMOOTH / max(size))
    return bounded((round(size[0] * scale), round(size[1] * scale)), LARGEST)


def outline(mask: Image.Image) -> Image.Image:
    """Returns the border of nonzero regions of a mask as an RGBA layer: white between black, for any background."""
    from ccd_lightning.visualization.overlays import rim

    width = 1 + 2 * max(1, min(mask.size) // 400)
    white = rim(mask)
    black = white.filter(ImageFilter.MaxFilter(width))
    layer = Image.new("RGBA", mask.size)
    layer.paste((0, 0, 0, 255), mask=black)
    layer.paste((255, 255, 255, 255), mask=white)
    return layer


def _draw_map(scored: ScoredMap) -> MapPictures:
    """Creates the layers of `Pictures.anomaly_map`."""
    from ccd_lightning.visualization.overlays import draw_colours, draw_lines, placed_levels

    if math.isnan(scored.limits[1]):
        raise UserError("Maps need the range of normal maps, which this run does not have. Fit it with validation.")
    shown = layer_size(scored.placement.original)
    placement = scored.placement._replace(original=shown, source=scored.placement.source_in(*shown))
    levels = placed_levels(scored.anomaly_map, placement, scored.limits)
    colours, lines = (
        _encode(layer, "PNG", compress_level=1)
        for layer in (draw_colours(levels, placement), draw_lines(levels, placement))
    )
    return MapPictures(colours, lines, scored.score)


def _encode(image: Image.Image, form: str, **options: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()
