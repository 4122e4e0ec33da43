"""PNG, JPEG, TIFF, BMP, WebP, GIF: what Pillow reads."""

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

from ccd_lightning.data.formats.bounds import WAY_OUT, max_pixels, require_bytes, require_pixels
from ccd_lightning.data.formats.picture import Header, Least, Picture
from ccd_lightning.data.sources import state_of
from ccd_lightning.errors import UserError

ORIENTATION = 0x0112  # EXIF's tag; from 5 on, width and height change places
SUBFILE = 254  # TIFF's tag of what a page is; its lowest bit marks a smaller version of another page
BITS, PHOTOMETRIC = 258, 262  # TIFF's tags of the bits of each sample, and of what their values mean:
WHITE_IS_ZERO = 0
ONE_IMAGE = ("MPO", "PSD")  # formats whose further frames are previews or layers of the first
WALKED = ("TIFF", "GIF")  # formats in which frames can only be counted by going to each
SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
CHANNELS = 4  # bytes of a decoded pixel, at most
IHDR = 26  # bytes of a PNG file up to the depth and the type of its colour, each of one byte
GREY_WITH_ALPHA, COLOUR_WITH_ALPHA = 4, 6  # two of these types
STUDIED = 8192  # bytes of a PNG file in which its first chunks are

# Pillow warns of files that it decodes all the same. Images that are too large are refused (`formats.bounds`).
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Names the file where Pillow, which raises many kinds of error, cannot decode it."""
    try:
        yield
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: more than the {max_pixels():,} pixels that are decoded at once. {WAY_OUT}") from error
    except Exception as error:  # struct.error, KeyError, zlib.error ...: whatever its decoders come across
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be decoded ({reason}). Replace or remove this file.") from error


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    with decoding(file), Image.open(file) as image:
        require_pixels(file, *image.size)
        yield image


def read_header(file: Path, page: int = 0) -> Header:
    """Reads size, depth and number of images; no pixel is decoded.

    Args:
        file: The file.
        page: Of which of its images the size is to be read, from 0.

    Raises:
        UserError: If the file is no image that can be read, or has no such page.
    """
    with _opened(file) as image:
        pages = _pages(image, file)
        _seek(image, file, pages, page)
        orientation = int(Image.Image.getexif(image).get(ORIENTATION, 1))  # as in `upright_size`
        return Header(upright_size(image), len(pages), _mode(image, file), orientation=orientation)


def _seek(image: Image.Image, file: Path, pages: Sequence[int], page: int) -> None:
    """Goes to a page; more bytes than may be unpacked are refused there."""
    if page >= len(pages):
        raise UserError(f"{file}[{page}]: no such page; there are {len(pages)}, counted from 0.")
    if pages[page] > 0:
        image.seek(pages[page])
    require_pixels(file, *image.size)
    require_bytes(file, image.width * image.height * CHANNELS)


def read_picture(file: Path, page: int | None = None, least: Least | None = None) -> Picture:
    """Decodes one image, turned as its EXIF orientation says.

    Args:
        file: The file.
        page: Which of its images, from 0; None where it holds one.
        least: Says which size of the whole image suffices: a JPEG file may be decoded at a half, a fourth or an eighth
            of its own, which takes less time. None decodes it at its own size.

    Raises:
        UserError: If the file cannot be decoded, has no such page, or holds several and none is named.
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
        deep = image.mode in (*SIXTEEN, "I", "F")  # of 8 bits, Pillow inverts them itself
        inverted = deep and _tag(image, PHOTOMETRIC) == WHITE_IS_ZERO
        return Picture(ImageOps.exif_transpose(image), size, full, inverted=inverted)


def _mode(image: Image.Image, file: Path) -> str:
    """The mode of an opened file, at its page.

    Pillow decodes colour of 16 bits to 8 and calls it "RGB": here it is "RGB;16". PNG files with grey of 16 bits and
    alpha, which Pillow reads as colour of 8 bits, are "I;16".
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
    """Decodes a PNG file with grey of 16 bits and alpha, without the alpha, which is not shown for 8 bits either.

    Its pixels have four bytes, as those of colour of 8 bits with alpha have: read so, the first two are the grey value.
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
    """A tag of the page at which an opened TIFF file is; the default where there is none, and of other formats."""
    tags: Any = getattr(image, "tag_v2", {})
    return tags.get(number, default)


def _bits(image: Image.Image) -> int:
    """How many bits a sample has in an opened file that Pillow decodes to 16."""
    return min(map(int, _tag(image, BITS, (16,))))


def holds_one(file: Path) -> bool:
    """Whether a file is known to hold one image, by its name or its first bytes; False where it has to be opened."""
    suffix = file.suffix.lower()
    if suffix == ".png":
        with file.open("rb") as stream:
            start = stream.read(STUDIED)
        before, pixels, _ = start.partition(b"IDAT")
        return bool(pixels) and b"acTL" not in before
    return suffix in (".jpg", ".jpeg", ".bmp")


def _pages(image: Image.Image, file: Path) -> Sequence[int]:
    """The frames of an opened file that are images of their own.

    Previews do not count: smaller versions of a TIFF file's image, and what a camera's JPEG (MPO) holds beside it.
    """
    if image.format in ONE_IMAGE:
        return (0,)
    return _walk(file, state_of(file)) if image.format in WALKED else range(getattr(image, "n_frames", 1))


@functools.lru_cache(maxsize=4096)
def _walk(file: Path, state: str) -> Sequence[int]:
    """The same, of a file as long as it stays in this state: done for each page again, it would take N * N steps."""
    with _opened(file) as image:
        count = getattr(image, "n_frames", 1)
        if count == 1 or image.format != "TIFF":
            return range(count)
        return tuple(page for page in range(count) if not _is_preview(image, page))


def _is_preview(image: Image.Image, page: int) -> bool:
    image.seek(page)
    return page > 0 and bool(_tag(image, SUBFILE, 0) & 1)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height in pixels of an opened file, turned as its EXIF orientation says; nothing is decoded."""
    width, height = image.size
    exif = Image.Image.getexif(image)  # that of a PNG file's own class decodes it
    lying = exif.get(ORIENTATION, 1) >= 5 and image.format != "TIFF"  # whose size Pillow has turned already
    return (height, width) if lying else (width, height)
