"""DICOM images, read with pydicom and its decoders."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccd_lightning.data.formats.dicom_file import DAMAGED, DicomFile, is_dicom, open_dicom, syntax_name
from ccd_lightning.data.formats.dicom_grey import Grey, grey_of, padding, take_frame_tags, windows_of
from ccd_lightning.data.formats.patients import pseudonym
from ccd_lightning.data.formats.picture import Header, Picture
from ccd_lightning.errors import UserError

__all__ = ["is_dicom", "read_header", "read_picture"]

SIZE_OF_JPEG = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # markers followed by height and width
DTYPES = {"L": "u1", "I;16": "u2", "I": "i4"}


def read_header(file: Path, page: int = 0) -> Header:
    """Reads the header of a file without decoding pixels.

    The group is a salted hash of the patient's ID or, if missing, of the study's UID.

    Args:
        file: Path of the file.
        page: Index of the frame whose mode is returned, from 0.

    Raises:
        UserError: If the file cannot be read, contains no image, or cannot be decoded.
    """
    with open_dicom(file) as opened:
        tags: Any = opened.tags
        take_frame_tags(tags, page)
        mode = "RGB" if _is_colour(tags) else grey_of(tags, opened.pixels).mode
        return Header((tags.Columns, tags.Rows), _frames(tags), mode, _group(tags))


def read_picture(file: Path, page: int | None = None) -> Picture:
    """Decodes one frame.

    Args:
        file: Path of the file.
        page: Index of the frame, from 0. None if the file has only one.

    Returns:
        Grey values in their unit (after rescale or modality LUT), with more than 8 bits if the file has more; or RGB.

    Raises:
        UserError: If the file cannot be read or decoded, contains no image, has no such frame, or has several frames
            and `page` is None.
    """
    with open_dicom(file) as opened:
        tags: Any = opened.tags
        frames = _frames(tags)
        if page is None and frames > 1:
            raise UserError(
                f"{file}: {frames} frames in one file, but one image is expected. Name one, such as {file.name}[0]."
            )
        page = page or 0
        if not 0 <= page < frames:
            raise UserError(f"{file}[{page}]: no such frame; there are {frames}, counted from 0.")
        take_frame_tags(tags, page)
        colour = _is_colour(tags)
        grey = None if colour else grey_of(tags, opened.pixels)
        stored = _decode(opened, page, file)
        return _colours(stored, tags) if grey is None else _greys(stored, tags, grey)


def _frames(tags: Any) -> int:
    return max(1, int(tags.get("NumberOfFrames") or 1))


def _is_colour(tags: Any) -> bool:
    return bool(tags.SamplesPerPixel > 1 or tags.PhotometricInterpretation == "PALETTE COLOR")


def _group(tags: Any) -> str | None:
    for kind, name in (("patient", "PatientID"), ("study", "StudyInstanceUID")):
        if value := str(tags.get(name) or "").strip():
            return pseudonym(kind, value)
    return None


def _decode(opened: DicomFile, page: int, file: Path) -> NDArray[Any]:
    """Decodes one frame to stored values (height, width) or (height, width, 3), with YBR as RGB. No other is read."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import as_pixel_options

    tags: Any = opened.tags
    options = as_pixel_options(
        tags, pixel_keyword=opened.pixels, pixel_vr=opened.kind, transfer_syntax_uid=opened.syntax
    )
    if opened.syntax.is_encapsulated:
        _check_codestream(opened, page, file)
    for plugin in opened.plugins:
        opened.stream.seek(opened.start)
        try:
            decoder = get_decoder(opened.syntax)
            stored: NDArray[Any] = decoder.as_array(opened.stream, index=page, decoding_plugin=plugin, **options)[0]
            break
        except Exception as error:  # decoders raise many types of errors
            reason = type(error).__name__
    else:
        raise UserError(
            f"{file}: its pixels, in the transfer syntax {syntax_name(opened.syntax)}, cannot be decoded ({reason})."
            " Replace or remove this file."
        )
    if stored.shape[:2] != (tags.Rows, tags.Columns):
        raise UserError(f"{file}: {DAMAGED}. Replace or remove it.")
    return stored


def _check_codestream(opened: DicomFile, page: int, file: Path) -> None:
    """Checks that a compressed frame is not larger than its header states, as decoders allocate what it claims."""
    from pydicom.encaps import get_frame

    if "RLE" in opened.syntax.name:
        return  # RLE expands at most 64-fold
    tags: Any = opened.tags
    opened.stream.seek(opened.start)
    size = _codestream_size(get_frame(opened.stream, page, number_of_frames=_frames(tags)))
    if size is None or size[0] * size[1] * size[2] > tags.Rows * tags.Columns * tags.SamplesPerPixel:
        raise UserError(f"{file}: {DAMAGED} (its compressed pixels). Replace or remove it.")


def _codestream_size(frame: bytes) -> tuple[int, int, int] | None:
    """Returns width, height and channels stated in JPEG, JPEG-LS or JPEG 2000 data, or None if it is none of these."""
    start = _jp2_codestream(frame) if frame[4:8] == b"jP  " else 0
    if frame[start : start + 4] == b"\xff\x4f\xff\x51" and len(frame) >= start + 42:
        right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
        (channels,) = struct.unpack_from(">H", frame, start + 40)
        return right - left, bottom - top, channels
    offset = 2
    while frame[:2] == b"\xff\xd8" and offset + 10 <= len(frame) and frame[offset] == 0xFF:
        if frame[offset + 1] in SIZE_OF_JPEG:
            height, width, channels = struct.unpack_from(">HHB", frame, offset + 5)
            return width, height, channels
        fill = frame[offset + 1] == 0xFF
        offset += 1 if fill else 2 + int.from_bytes(frame[offset + 2 : offset + 4], "big")
    return None


def _jp2_codestream(frame: bytes) -> int:
    """Returns the start of the codestream in JP2 data, or 0 if none. A box without a length would hang pydicom."""
    offset = 0
    while offset + 8 <= len(frame) and (length := int.from_bytes(frame[offset : offset + 4], "big")) >= 8:
        offset += length
        if frame[offset + 4 : offset + 8] == b"jp2c":
            return offset + 8
    return 0


def _colours(stored: NDArray[Any], tags: Any) -> Picture:
    """Converts to RGB with 8 bits. More bits are scaled down."""
    bits = int(tags.BitsStored)
    if tags.PhotometricInterpretation == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        bits = int(tags.RedPaletteColorLookupTableDescriptor[2])
        stored = apply_color_lut(stored, tags)
        bits = 8 * stored.dtype.itemsize if bits <= 8 * stored.dtype.itemsize else bits
    if bits != 8:
        stored = np.rint(stored * (255 / (2.0**bits - 1)))
    image = Image.fromarray(stored[..., :3].clip(0, 255).astype(np.uint8))
    return Picture(image, image.size)


def _greys(stored: NDArray[Any], tags: Any, grey: Grey) -> Picture:
    from pydicom.pixels.processing import apply_modality_lut

    missing, inverted = padding(tags, stored), tags.PhotometricInterpretation == "MONOCHROME1"
    if grey.mode == "1":
        image = Image.fromarray(stored.astype(bool))
        return Picture(image, image.size, inverted=inverted)
    values = apply_modality_lut(stored, tags) if grey.rescaled else stored
    if grey.mode == "F":
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
    else:
        values = _saturated(values, np.dtype(DTYPES[grey.mode]))
    image = Image.fromarray(values)
    return Picture(image, image.size, grey.full, windows_of(tags), inverted, missing)


def _saturated(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Converts values to an integer type; those beyond its limits become the limit."""
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    if values.dtype.kind in "iu":  # NumPy before 2.1 cannot compare integers with numbers beyond their own limits
        own = np.iinfo(values.dtype)
        low, high = max(low, int(own.min)), min(high, int(own.max))
    return values.clip(low, high).astype(dtype)
