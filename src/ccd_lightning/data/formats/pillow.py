"""PNG, JPEG, TIFF, BMP, WebP and GIF images, read with Pillow."""

from __future__ import annotations

import functools
import io
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ccd_lightning.data.formats.bounds import ADVICE, max_pixels, require_bytes, require_pixels
from ccd_lightning.data.formats.picture import Header, Least, Picture
from ccd_lightning.data.sources import state_of
from ccd_lightning.errors import UserError

ORIENTATION = 0x0112  # EXIF tag; from 5 on, width and height are swapped
SUBFILE = 254  # TIFF tag of the page type; its lowest bit marks a smaller version of another page
BITS, PHOTOMETRIC = 258, 262  # TIFF tags of the bits per sample, and of the meaning of the values:
WHITE_IS_ZERO = 0
ONE_IMAGE = ("MPO", "PSD")  # formats whose further frames are previews or layers of the first
WALKED = ("TIFF", "GIF")  # formats whose frames can only be counted by seeking to each
SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
CHANNELS = 4  # maximum number of bytes of a decoded pixel
IHDR = 26  # number of bytes of a PNG file up to and including bit depth and colour type, one byte each
GREY_WITH_ALPHA, COLOUR_WITH_ALPHA = 4, 6  # two of the colour types
STUDIED = 8192  # number of bytes at the start of a PNG file that are searched for its first chunks
SINGLE = (".jpg", ".jpeg", ".bmp")  # suffixes of files that contain one image

# Pillow warns about files that it can still decode. Images that are too large are rejected by `formats.bounds`.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Converts any error of Pillow to a `UserError` that names the file."""
    try:
        yield
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: more than the {max_pixels():,} pixels that are decoded at once. {ADVICE}") from error
    except Exception as error:  # its decoders raise struct.error, KeyError, zlib.error and others
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be decoded ({reason}). Replace or remove this file.") from error


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    with decoding(file), Image.open(file) as image:
        require_pixels(file, *image.size)
        yield image


def read_header(file: Path, page: int = 0) -> Header:
    """Reads size, depth and number of images without decoding pixels.

    Args:
        file: Path of the file.
        page: Index of the image whose size is read, from 0.

    Raises:
        UserError: If the file is not a readable image, or has no such page.
    """
    with _opened(file) as image:
        pages = _pages(image, file)
        _seek(image, file, pages, page)
        orientation = int(Image.Image.getexif(image).get(ORIENTATION, 1))  # as in `upright_size`
        return Header(upright_size(image), len(pages), _mode(image, file), orientation=orientation)


def _seek(image: Image.Image, file: Path, pages: Sequence[int], page: int) -> None:
    """Seeks to a page and checks that it is not too large."""
    if page >= len(pages):
        raise UserError(f"{file}[{page}]: no such page; there are {len(pages)}, counted from 0.")
    if pages[page] > 0:
        image.seek(pages[page])
    require_pixels(file, *image.size)
    require_bytes(file, image.width * image.height * CHANNELS)


def read_picture(file: Path, page: int | None = None, least: Least | None = None) -> Picture:
    """Decodes one image and applies its EXIF orientation.

    Args:
        file: Path of the file.
        page: Index of the image, from 0. None if the file contains only one.
        least: Function that returns which size of the whole image suffices: a JPEG file may be decoded at a half, a
            quarter or an eighth of its size, which is faster. None decodes it at full size.

    Raises:
        UserError: If the file cannot be decoded, has no such page, or contains several images and `page` is None.
    """
    with _opened(file) as image:
        pages = _pages(image, file)
        if page is None and len(pages) > 1:
            raise UserError(
                f"{file}: {len(pages)} pages (or frames) in one file, but one image is expected. Name one, such as"
                f" {file.name}[0]."
            )
        _seek(image, file, pages, page or 0)
        size = upright_size(image)
        if least and (wanted := least(size)):
            image.draft(None, wanted if size == image.size else wanted[::-1])
        if image.mode not in SIXTEEN and _mode(image, file) in SIXTEEN:
            image = _grey_of_16(image, file)
        image.load()
        full = (0.0, 2.0 ** _bits(image) - 1) if image.mode in SIXTEEN else None
        deep = image.mode in (*SIXTEEN, "I", "F")  # 8-bit images are inverted by Pillow itself
        inverted = deep and _tag(image, PHOTOMETRIC) == WHITE_IS_ZERO
        return Picture(ImageOps.exif_transpose(image), size, full, inverted=inverted)


def _mode(image: Image.Image, file: Path) -> str:
    """Returns the mode of an opened file at its current page.

    Pillow decodes 16-bit colour to 8 bits and calls it "RGB"; here it is "RGB;16". PNG files with 16-bit grey and
    alpha, which Pillow reads as 8-bit colour, are "I;16".
    """
    if image.format == "PNG" and image.mode in ("RGB", "RGBA"):
        with file.open("rb") as stream:
            depth, colour = stream.read(IHDR)[-2:]
        if depth == 16:
            single = getattr(image, "n_frames", 1) == 1
            return "I;16" if single and colour == GREY_WITH_ALPHA else f"{image.mode};16"
    bits = _tag(image, BITS, ())
    return f"{image.mode};16" if len(bits) > 1 and max(bits) > 8 else image.mode


def _grey_of_16(image: Image.Image, file: Path) -> Image.Image:
    """Decodes a PNG file with 16-bit grey and alpha. Alpha is dropped, as it is for 8 bits.

    Its pixels have four bytes, like those of 8-bit colour with alpha. Read as such, the first two are the grey value.
    """
    content = bytearray(file.read_bytes())
    content[IHDR - 2 : IHDR] = 8, COLOUR_WITH_ALPHA
    content[IHDR + 3 : IHDR + 7] = zlib.crc32(content[12 : IHDR + 3]).to_bytes(4, "big")  # of the chunk's name and data
    with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
        pixels = np.asarray(opened)
    grey = Image.fromarray(pixels[:, :, 0].astype(np.uint16) << 8 | pixels[:, :, 1])
    grey.getexif()[ORIENTATION] = Image.Image.getexif(image).get(ORIENTATION, 1)
    return grey


def _tag(image: Image.Image, number: int, default: Any = None) -> Any:
    """Returns a tag of the current page of an opened TIFF file, or the default if missing or for other formats."""
    tags: Any = getattr(image, "tag_v2", {})
    return tags.get(number, default)


def _bits(image: Image.Image) -> int:
    """Returns the number of bits per sample of an opened file that Pillow decodes to 16 bits."""
    return min(map(int, _tag(image, BITS, (16,))))


def holds_one(file: Path) -> bool:
    """Returns whether a file is known by its name or first bytes to contain one image. If not, it must be opened."""
    suffix = file.suffix.lower()
    if suffix == ".png":
        with file.open("rb") as stream:
            start = stream.read(STUDIED)
        before, pixels, _ = start.partition(b"IDAT")
        return bool(pixels) and b"acTL" not in before
    return suffix in SINGLE


def _pages(image: Image.Image, file: Path) -> Sequence[int]:
    """Returns the frames of an opened file that are independent images.

    Previews do not count: smaller versions of a TIFF file's image, and those in a camera's JPEG (MPO).
    """
    if image.format in ONE_IMAGE:
        return (0,)
    return _walk(file, state_of(file)) if image.format in WALKED else range(getattr(image, "n_frames", 1))


@functools.lru_cache(maxsize=4096)
def _walk(file: Path, state: str) -> Sequence[int]:
    """Like `_pages`, cached while the file's state is unchanged. Repeated for each page, it would take N * N steps."""
    with _opened(file) as image:
        count = getattr(image, "n_frames", 1)
        if count == 1 or image.format != "TIFF":
            return range(count)
        return tuple(page for page in range(count) if not _is_preview(image, page))


def _is_preview(image: Image.Image, page: int) -> bool:
    image.seek(page)
    return page > 0 and bool(_tag(image, SUBFILE, 0) & 1)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Returns width and height in pixels of an opened file after applying its EXIF orientation. Nothing is decoded."""
    width, height = image.size
    exif = Image.Image.getexif(image)  # getexif of a PNG file's own class would decode it
    lying = exif.get(ORIENTATION, 1) >= 5 and image.format != "TIFF"  # Pillow swaps those of TIFF files itself
    return (height, width) if lying else (width, height)
