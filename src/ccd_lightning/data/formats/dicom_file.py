"""Opening of DICOM files: reads only the tags that an image needs, with limits on memory and no tag values in messages.

Tags contain names, dates and IDs of patients. The warnings and errors of pydicom may quote them, so none is passed on.
"""

from __future__ import annotations

import io
import logging
import mmap
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from PIL import Image

from ccd_lightning.data.formats.contents import begins_as_dicom
from ccd_lightning.errors import UserError
from ccd_lightning.extras import pip_install

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

SUFFIXES = (".dcm", ".dicom", ".ima")
DEFLATED = b"1.2.840.10008.1.2.1.99"
INFLATED = b"1.2.840.10008.1.2.1\0\0\0"  # explicit VR little endian, padded to the same length
INFLATION = 256 << 20  # maximum size in bytes of an inflated file
TAGS = (
    "SOPClassUID", "PatientID", "StudyInstanceUID", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction",
    "VOILUTSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    *(f"{part}{colour}PaletteColorLookupTable{what}" for colour in ("Red", "Green", "Blue")
      for part, what in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))),
)  # fmt: skip
PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
# pydicom's own RLE decoder is as fast as the one in Rust, which panics on damaged data. GDCM's decoder, which pydicom
# would try first if it is installed, terminates the whole process on such data.
DECODERS = ("pylibjpeg", "pyjpegls", "pillow")
QUIET = r"(pydicom|pylibjpeg|openjpeg|libjpeg)(\.|$)"  # modules whose warnings may quote tags
DAMAGED = "a damaged DICOM file, or one that violates the standard"


@dataclass(frozen=True)
class DicomFile:
    """An opened DICOM file, read up to its pixels.

    Attributes:
        stream: Stream of the file, inflated if the file is deflated.
        tags: The tags of TAGS that the file contains.
        syntax: Transfer syntax.
        pixels: Name of the element that contains the pixels, one of PIXELS.
        kind: Value representation of this element.
        plugins: Decoding plugins of pydicom, in the order in which they are tried.
        start: Position of the pixel data in the stream.
        length: Number of bytes from there to the end.
    """

    stream: BinaryIO
    tags: Dataset
    syntax: UID
    pixels: str
    kind: str
    plugins: tuple[str, ...]
    start: int
    length: int


def is_dicom(file: Path) -> bool:
    """Returns whether a file should be read as DICOM, by its content or else by its suffix."""
    return file.suffix.lower() in SUFFIXES or begins_as_dicom(file)


class _Mapped(mmap.mmap):
    """A memory-mapped file. It is never read beyond its end, however long a damaged element claims to be."""

    def seek(self, pos: int, whence: int = 0) -> int:  # type: ignore[override]  # as of Python 3.13
        """Moves to a position, or to the end if the position lies beyond it, as files do."""
        super().seek(min(max((0, self.tell(), len(self))[whence] + pos, 0), len(self)))
        return self.tell()


@contextmanager
def open_dicom(file: Path) -> Iterator[DicomFile]:
    """Opens a DICOM file.

    Any error while the file is open becomes a `UserError` without the text of its cause.

    Raises:
        UserError: If the file cannot be read, contains no image, or is too large.
    """
    _prepare_pydicom(file)
    try:
        with file.open("rb") as handle, _Mapped(handle.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield _parse(_inflate(cast(BinaryIO, mapped), file), file)
    except UserError:
        raise
    except Exception as error:  # damaged files lead to many types of errors, whose text may quote the file's tags
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"{file}: cannot be read ({error.strerror}).") from None
        raise UserError(f"{file}: {DAMAGED} ({type(error).__name__}). Replace or remove this file.") from None


def _prepare_pydicom(file: Path) -> None:
    try:
        import pydicom  # noqa: F401  (is it there?)
    except ImportError as error:
        raise UserError(
            f"{file}: DICOM files are read with pydicom. Install it with: {pip_install('dicom')}"
        ) from error
    if not any(getattr(known[3], "pattern", None) == QUIET for known in warnings.filters):
        warnings.filterwarnings("ignore", module=QUIET)
    for name in ("pydicom", "pylibjpeg", "openjpeg", "libjpeg"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _inflate(stream: BinaryIO, file: Path) -> BinaryIO:
    """Returns the stream with a deflated data set inflated. pydicom would inflate it without a limit."""
    from pydicom.filereader import read_dataset

    if stream.read(132)[128:] != b"DICM":
        if file.suffix.lower() not in SUFFIXES:
            raise UserError(f"{file}: not a DICOM file.")
        stream.seek(0)
        return stream
    meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
    if str(meta.get("TransferSyntaxUID", "")) != DEFLATED.decode():
        stream.seek(0)
        return stream
    end = stream.tell()
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(stream.read(), INFLATION)
    if inflater.unconsumed_tail:
        raise UserError(f"{file}: its deflated content has more than {INFLATION:,} bytes, which are not read.")
    stream.seek(0)
    return io.BytesIO(stream.read(end).replace(DEFLATED, INFLATED) + content)


def _parse(stream: BinaryIO, file: Path) -> DicomFile:
    from pydicom import dcmread
    from pydicom.uid import UID

    stream.seek(0)
    tags = dcmread(stream, stop_before_pixels=True, force=True, specific_tags=list(TAGS))
    element = stream.read(12)  # tag, VR and length; no VR if it is implicit
    order: Any = "little" if tags.original_encoding[1] is not False else "big"
    group, number = (int.from_bytes(element[at : at + 2], order) for at in (0, 2))
    pixels = PIXELS.get((group << 16) + number)
    meta: Any = tags.file_meta
    if pixels is None or not {"Rows", "Columns", "BitsAllocated"} <= set(tags.dir()):
        kind = str(tags.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")
        name = f" ({UID(kind).name})" if kind and UID(kind).name != kind else ""
        raise UserError(f"{file}: a DICOM file without an image{name}. Leave it out.")
    vr = element[4:6] if element[4:6] in (b"OB", b"OW", b"OF", b"OD") else b""  # implicit
    start = stream.tell() - (0 if vr else 4)
    syntax = UID(meta.get("TransferSyntaxUID") or _syntax_of(tags))
    _complete(tags)
    plugins = _decoders(syntax, file)
    opened = DicomFile(stream, tags, syntax, pixels, (vr or b"OW").decode(), plugins, start, stream.seek(0, 2) - start)
    _check_size(opened, file)
    return opened


def _syntax_of(tags: Any) -> str:
    """Returns the transfer syntax that pydicom guessed, for a file without the header that names it."""
    implicit, little = tags.original_encoding
    return f"1.2.840.10008.1.2{'' if implicit else '.1' if little else '.2'}"


def _complete(tags: Any) -> None:
    """Sets tags that files with one grey channel may omit."""
    for name, value in (("SamplesPerPixel", 1), ("PhotometricInterpretation", "MONOCHROME2"),
                        ("PixelRepresentation", 0), ("BitsStored", tags.BitsAllocated)):  # fmt: skip
        if tags.get(name) is None:
            setattr(tags, name, value)


def syntax_name(syntax: UID) -> str:
    """Returns the standard's name of a transfer syntax, because the file's own value may be any text."""
    return f"{syntax.name} ({syntax})" if syntax.name != str(syntax) else "which the DICOM standard does not list"


def _decoders(syntax: UID, file: Path) -> tuple[str, ...]:
    """Returns the plugins of DECODERS that are installed and support a transfer syntax.

    Raises:
        UserError: If there is none.
    """
    from pydicom.pixels.decoders.base import get_decoder

    name = syntax_name(syntax)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UserError(
            f"{file}: no Python package decodes its transfer syntax, {name}. Convert it, such as with gdcmconv --raw,"
            " or a video into frames with ffmpeg."
        ) from None
    if not syntax.is_encapsulated:
        return ("",)
    if "pydicom" in decoder.available_plugins:
        return ("pydicom",)
    if found := tuple(plugin for plugin in DECODERS if plugin in decoder.available_plugins):
        return found
    texts = (text.split(" - requires ") for text in decoder.missing_dependencies)
    needed = " or ".join(text[1] for text in texts if text[0] in DECODERS)
    raise UserError(f"{file}: to decode its transfer syntax, {name}, install {needed}: {pip_install('dicom')}")


def _check_size(opened: DicomFile, file: Path) -> None:
    """Checks that an image is within Pillow's limit for other formats, and that its pixels can fit in the file."""
    from pydicom.pixels.utils import get_expected_length, get_nr_frames

    tags: Any = opened.tags
    pixels, most = tags.Rows * tags.Columns, Image.MAX_IMAGE_PIXELS
    if most and pixels > 2 * most:
        raise UserError(f"{file}: {tags.Columns} x {tags.Rows} pixels, but at most {2 * most:,} are read.")
    if pixels < 1:
        raise UserError(f"{file}: {DAMAGED} (no pixels). Replace or remove this file.")
    least = 8 * get_nr_frames(tags) if opened.syntax.is_encapsulated else get_expected_length(tags)
    if least > opened.length:
        raise UserError(f"{file}: the file is cut off, or {DAMAGED}. Replace or remove it.")
