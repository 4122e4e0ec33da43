"""Pictures of the page, made when they are asked for: thumbnails, images, maps, and outlines of masks."""

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

THUMBNAIL = 128  # pixels of the longer side
LARGEST = 2048  # and of the large view's: what screens show
SMOOTH = 768  # and at least of what is laid over it, so that lines and colours of small images are not coarse
MOST_BYTES = 1 << 27  # of pictures that are kept, which is about 20,000 thumbnails
MAPS = 16  # that are kept beside them
Size = tuple[int, int]


class MapPictures(NamedTuple):
    """A map as two pictures of the image's shape, and the image's score as it is now."""

    colours: bytes
    lines: bytes
    score: float


class Pictures:
    """Makes and keeps pictures; any number of threads may ask.

    Args:
        results: The images.
        scorer: Makes their maps.
    """

    def __init__(self, results: ShownResults, scorer: Scorer) -> None:
        self.results = results
        self.scorer = scorer
        self.kept = ByteCache(MOST_BYTES)
        self._maps = functools.lru_cache(MAPS)(lambda index: _draw_map(self.scorer.score(results.image(index))))
        self._decoders = threading.BoundedSemaphore(os.cpu_count() or 1)  # each image in memory may be large

    def thumbnail(self, index: int) -> bytes:
        """A JPEG of `THUMBNAIL` pixels."""
        return self.kept.get(("thumbnail", index), lambda: _encode(self._read(index, THUMBNAIL), "JPEG", quality=80))

    def image(self, index: int) -> bytes:
        """A PNG of the image, of at most `LARGEST` pixels."""
        return self.kept.get(("image", index), lambda: _encode(self._read(index, LARGEST), "PNG", compress_level=1))

    def anomaly_map(self, index: int) -> MapPictures:
        """PNGs to lay over the image; colours are those of the report at an opacity of one half.

        Raises:
            UserError: If the image cannot be scored, or there is no range of normal maps.
        """
        with self.scorer.lock:
            return self._maps(index)  # the second request for the same map finds it there

    def mask(self, index: int) -> bytes:
        """A PNG of the outline of what is abnormal, to lay over the image.

        Raises:
            UserError: If there is no mask, or it cannot be read.
        """
        return self.kept.get(("mask", index), lambda: _encode(self._outline(index), "PNG"))

    def _read(self, index: int, side: int) -> Image.Image:
        """An image, RGB, made smaller where its longer side has more pixels than `side`."""
        path = self.results.image(index)
        with self._decoders:
            picture = read_picture(path, lambda size: bounded(size, side))
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
    """The size of a picture whose longer side has at most `side` pixels, in its proportions."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def layer_size(size: Size) -> Size:
    """The size of what is laid over an image of this size."""
    scale = max(1.0, SMOOTH / max(size))
    return bounded((round(size[0] * scale), round(size[1] * scale)), LARGEST)


def outline(mask: Image.Image) -> Image.Image:
    """The border of what is not 0 in a mask as a picture (RGBA): white between black, to be seen on any ground."""
    from ccd_lightning.visualization.overlays import rim

    width = 1 + 2 * max(1, min(mask.size) // 400)
    white = rim(mask)
    black = white.filter(ImageFilter.MaxFilter(width))
    layer = Image.new("RGBA", mask.size)
    layer.paste((0, 0, 0, 255), mask=black)
    layer.paste((255, 255, 255, 255), mask=white)
    return layer


def _draw_map(scored: ScoredMap) -> MapPictures:
    """The pictures of `Pictures.anomaly_map`."""
    from ccd_lightning.visualization.overlays import draw_colours, draw_lines, placed_levels

    if math.isnan(scored.limits[1]):
        raise UserError("There is no range of normal maps to colour this one by: fit the detector with validation.")
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
