"""DICOM files for tests, written by pydicom."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

SHIPPED = Path(str(get_testdata_file("CT_small.dcm"))).parent  # the files that pydicom is tested with


def dicom(path: Path, pixels: np.ndarray[Any, Any], syntax: str = ExplicitVRLittleEndian, **tags: Any) -> Path:
    """Writes an image, compressed if the transfer syntax says so; options set tags.

    Args:
        path: Where to; its folder is made.
        pixels: (H, W), (frames, H, W) or (H, W, 3) as they are stored.
        syntax: The transfer syntax.
        tags: Values by keyword; None leaves a tag out.
    """
    colour = pixels.shape[-1] == 3
    frames = len(pixels) if pixels.ndim == 3 and not colour else None
    bits = 8 * pixels.dtype.itemsize
    defaults = {
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": "1.2.3.4", "PatientID": "", "StudyInstanceUID": "1.2.3",
        "Rows": pixels.shape[-3 if colour else -2], "Columns": pixels.shape[-2 if colour else -1],
        "SamplesPerPixel": 3 if colour else 1, "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1, "NumberOfFrames": frames,
        "PixelRepresentation": int(np.issubdtype(pixels.dtype, np.signedinteger)),
        "PlanarConfiguration": 0 if colour else None,
    }  # fmt: skip
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=["test"])
    native = syntax if not pydicom.uid.UID(syntax).is_encapsulated else ExplicitVRLittleEndian
    meta.TransferSyntaxUID = pydicom.uid.UID(native)
    image = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    for name, value in (defaults | tags).items():
        if value is not None:
            setattr(image, name, value)
    little = native != ExplicitVRBigEndian
    image.set_original_encoding(native == ImplicitVRLittleEndian, little)
    keyword = {"f4": "FloatPixelData", "f8": "DoubleFloatPixelData"}.get(pixels.dtype.str[1:], "PixelData")
    content = pixels.astype(pixels.dtype.newbyteorder("<" if little else ">")).tobytes()
    setattr(image, keyword, content + b"\0" * (len(content) % 2))
    if keyword == "PixelData":
        image["PixelData"].VR = "OW" if bits > 8 or native == ImplicitVRLittleEndian else "OB"
    if native != syntax:
        image.compress(syntax, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)
    return path
