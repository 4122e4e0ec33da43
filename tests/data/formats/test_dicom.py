"""DICOM: what pydicom's own functions give, and a sentence for what cannot be read."""

import random
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from ccd_lightning.data.formats.dicom import is_dicom, read_header, read_picture
from ccd_lightning.data.formats.picture import Header, Picture
from ccd_lightning.errors import UserError
from tests.dicom_files import SHIPPED, dicom

# What pydicom ships to test that it refuses: no decoder reads them, their pixels end early, or a number is none.
BROKEN = {"JPEG-lossy.dcm", "JPEG2000-embedded-sequence-delimiter.dcm", "MR_truncated.dcm", "badVR.dcm"}
NO_IMAGE = (
    *("rtstruct", "rtplan", "SR", "reportsi", "DICOMDIR", "waveform", "UN_sequence", "TINY_ALPHA", "NoMeta.dcm"),
    *("priv_SQ", "no_meta", "meta_missing", "empty_charset"),
)
GREYS = 3 * np.arange(64)[:, None] + np.arange(48)  # up to 236


def shipped() -> list[Path]:
    return [path for path in sorted(SHIPPED.rglob("*")) if path.is_file() and is_dicom(path)]


def by_pydicom(path: Path, page: int) -> np.ndarray[Any, Any]:
    """The values by pydicom alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tags = pydicom.dcmread(path)
        stored = pixel_array(tags, index=page)
        if tags.PhotometricInterpretation == "PALETTE COLOR":
            return np.asarray(apply_color_lut(stored, tags)) / 257
        if tags.SamplesPerPixel > 1:
            return np.asarray(stored / ((2.0**tags.BitsStored - 1) / 255))
        return np.asarray(apply_modality_lut(stored, tags))


def test_every_file_that_pydicom_ships_is_read_as_pydicom_does_or_refused() -> None:
    read = 0
    for path in shipped():
        if path.name in BROKEN or any(part in str(path.relative_to(SHIPPED)) for part in NO_IMAGE):
            with pytest.raises(UserError, match=re.escape(str(path))) as error:
                read_picture(path)
            assert path.name in BROKEN or "without an image" in str(error.value) or "damaged" in str(error.value)
            continue
        header = read_header(path)
        for page in {0, header.pages - 1}:
            picture = read_picture(path, page)
            assert (picture.image.size, picture.image.mode) == (header.size, header.mode)
            values = np.asarray(picture.image).astype(float)
            assert np.abs(values - by_pydicom(path, page)).max() <= {"RGB": 0.51, "F": 2e-4}.get(header.mode, 0), path
        read += 1
    assert read == 89


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless,
                                    JPEG2000Lossless, DeflatedExplicitVRLittleEndian])  # fmt: skip
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16])
def test_transfer_syntaxes(syntax: str, kind: type[np.generic], tmp_path: Path) -> None:
    stored = (GREYS - (50 if kind is np.int16 else 0)).astype(kind)
    path = dicom(tmp_path / "a", stored, syntax)
    picture = read_picture(path)
    assert picture.image.mode == {np.uint8: "L", np.int16: "I", np.uint16: "I;16"}[kind]
    assert np.array_equal(np.asarray(picture.image), stored)
    colours = np.stack([stored, stored + 1, stored + 2], 2).astype(np.uint8)
    assert np.array_equal(np.asarray(read_picture(dicom(tmp_path / "b", colours, syntax)).image), colours)


def test_planar_colours(tmp_path: Path) -> None:
    colours = np.stack([GREYS, GREYS + 1, GREYS + 2], 2).astype(np.uint8)
    path = dicom(tmp_path / "a", colours, PlanarConfiguration=1)
    tags = pydicom.dcmread(path)
    tags.PixelData = colours.transpose(2, 0, 1).tobytes()
    tags.save_as(path)
    assert np.array_equal(np.asarray(read_picture(path).image), colours)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_floating_point_pixels_are_read(kind: type[np.generic], tmp_path: Path) -> None:
    stored = (GREYS / 7 - 3).astype(kind)
    picture = read_picture(dicom(tmp_path / "a", stored, PixelRepresentation=None, BitsStored=None, HighBit=None))
    assert (picture.image.mode, picture.full) == ("F", None)
    assert np.array_equal(np.asarray(picture.image), stored.astype(np.float32))


def test_rescale_gives_the_unit_and_what_the_depth_can_hold_in_it(tmp_path: Path) -> None:
    stored = GREYS.astype(np.uint16)
    picture = read_picture(dicom(tmp_path / "a", stored, BitsStored=12, RescaleSlope=1, RescaleIntercept=-1024))
    assert (picture.image.mode, picture.full) == ("I", (-1024, 3071))
    assert np.array_equal(np.asarray(picture.image), stored.astype(int) - 1024)
    falling = read_picture(dicom(tmp_path / "b", stored, BitsStored=12, RescaleSlope="-0.5", RescaleIntercept=10))
    assert (falling.image.mode, falling.full) == ("F", (10 - 0.5 * 4095, 10))
    assert np.array_equal(np.asarray(falling.image), 10 - 0.5 * stored)
    eight = read_picture(dicom(tmp_path / "c", stored.astype(np.uint8), RescaleSlope=2, RescaleIntercept=0))
    assert (eight.image.mode, eight.full) == ("I", (0, 510))
    signed = read_picture(dicom(tmp_path / "d", (GREYS - 9).astype(np.int16), BitsStored=12))
    assert signed.full == (-2048, 2047)


def lut(values: np.ndarray[Any, Any], first: int, bits: int = 16, name: str = "") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(values), first, bits])
    item.add_new("LUTData", "OW", values.astype("<u2").tobytes())
    item.LUTExplanation = name
    return item


def test_a_modality_table(tmp_path: Path) -> None:
    stored = GREYS.astype(np.uint16)
    table = 60_000 - 7 * np.arange(100)  # shorter than the values reach
    path = dicom(tmp_path / "a", stored, ModalityLUTSequence=[lut(table, 20)])
    picture = read_picture(path)
    assert (picture.full, picture.image.mode, read_header(path).mode) == ((0, 65535), "I;16", "I;16")
    assert np.array_equal(np.asarray(picture.image), apply_modality_lut(stored, pydicom.dcmread(path)))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
def test_windows_are_those_of_pydicom(function: str | None, tmp_path: Path) -> None:
    stored = (10 * GREYS).astype(np.uint16)
    path = dicom(
        tmp_path / "a", stored, RescaleSlope=1, RescaleIntercept=-1024, VOILUTFunction=function,
        WindowCenter=[40, -600, 20.5], WindowWidth=[80, 1500, 1], WindowCenterWidthExplanation=["BRAIN", "LUNG"],
    )  # fmt: skip
    picture, tags = read_picture(path), pydicom.dcmread(path)
    assert [window.name for window in picture.windows] == ["BRAIN", "LUNG", ""]
    units = apply_modality_lut(stored, tags)
    for index, window in enumerate(picture.windows):
        shown = apply_voi_lut(units, tags, index)
        assert np.abs(window.shares(np.asarray(picture.image)) - (shown + 1024) / 65535).max() < 1e-9


def test_tables_come_before_windows(tmp_path: Path) -> None:
    stored = (GREYS - 30).astype(np.int16)
    tables = [lut(np.linspace(0, 4095, 90) ** 2 / 4095, -20, 12, "curved"), lut(np.arange(256), 0, 8)]
    path = dicom(tmp_path / "a", stored, VOILUTSequence=tables, WindowCenter=3, WindowWidth=9)
    picture = read_picture(path)
    assert [window.name for window in picture.windows] == ["curved", "", ""]
    shown = apply_voi_lut(stored, pydicom.dcmread(path), 0)
    assert np.abs(picture.windows[0].shares(np.asarray(picture.image)) - shown / 4095).max() < 1e-9
    assert np.allclose(picture.windows[1].shares(np.asarray([-5, 0, 51, 255, 999])), [0, 0, 0.2, 1, 1])


def test_a_window_that_is_wrong_is_none(tmp_path: Path) -> None:
    broken = lut(np.arange(256), 0, 8)
    del broken.LUTDescriptor
    tags: dict[str, Any] = {"WindowCenter": [3, 4], "WindowWidth": [-9, 5]}
    picture = read_picture(dicom(tmp_path / "a", GREYS.astype(np.uint16), VOILUTSequence=[broken], **tags))
    assert [(window.low, window.high) for window in picture.windows] == [(1.5, 5.5)]


def test_monochrome1_is_marked_and_keeps_its_values(tmp_path: Path) -> None:
    picture = read_picture(dicom(tmp_path / "a", GREYS.astype(np.uint16), PhotometricInterpretation="MONOCHROME1"))
    assert picture.inverted
    assert np.array_equal(np.asarray(picture.image), GREYS)


@pytest.mark.parametrize("value", [-2000, 63536])
def test_padding_is_known_by_its_stored_value(value: int, tmp_path: Path) -> None:
    stored = GREYS.astype(np.int16)
    stored[:3] = -2000
    path = dicom(tmp_path / "a", stored, RescaleSlope=2, RescaleIntercept=-1024)
    tags = pydicom.dcmread(path)
    tags.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
    tags.save_as(path)
    picture = read_picture(path)
    assert picture.missing is not None
    assert np.array_equal(picture.missing, stored == -2000)
    assert read_picture(dicom(tmp_path / "b", stored)).missing is None


def test_frames_are_read_alone_with_their_own_units(tmp_path: Path) -> None:
    frames = np.stack([GREYS, 2 * GREYS, 3 * GREYS]).astype(np.uint16)
    groups = []
    for index in range(3):
        units, shown, group = Dataset(), Dataset(), Dataset()
        units.RescaleSlope, units.RescaleIntercept = (0.5 if index == 1 else 1), -1000 * index
        shown.WindowCenter, shown.WindowWidth = 10 * index, 5
        group.PixelValueTransformationSequence, group.FrameVOILUTSequence = [units], [shown]
        groups.append(group)
    for syntax in (ExplicitVRLittleEndian, RLELossless):
        path = dicom(tmp_path / "a", frames, syntax, PerFrameFunctionalGroupsSequence=groups)
        assert read_header(path).pages == 3
        assert [read_header(path, page).mode for page in range(3)] == ["I;16", "F", "I"]
        picture = read_picture(path, 2)
        assert np.array_equal(np.asarray(picture.image), frames[2].astype(int) - 2000)
        assert picture.windows[0].low == 20 - 0.5 - 2
        with pytest.raises(UserError, match=r"3 frames in one file.*\[0\]"):
            read_picture(path)
        with pytest.raises(UserError, match=r"a\[3\]: no such frame; there are 3"):
            read_picture(path, 3)


def test_images_of_one_bit_are_black_and_white(tmp_path: Path) -> None:
    path = SHIPPED / "liver_1frame.dcm"
    assert set(np.unique(np.asarray(read_picture(path).image.convert("L")))) == {0, 255}


def test_dicom_files_are_recognised_by_content(tmp_path: Path) -> None:
    path = dicom(tmp_path / "IM000001", GREYS.astype(np.uint8))
    assert is_dicom(path)
    without = tmp_path / "x.IMA"
    without.write_bytes(path.read_bytes()[132:])
    assert np.array_equal(np.asarray(read_picture(without).image), GREYS)
    other = without.rename(tmp_path / "x.png")
    assert not is_dicom(other)
    with pytest.raises(UserError, match=r"x\.png: not a DICOM file"):
        read_picture(other)
    text = tmp_path / "notes.dcm"
    text.write_text("this is a text, which is no image at all. " * 20)
    with pytest.raises(UserError, match=r"notes\.dcm: .*DICOM"):
        read_header(text)
    (tmp_path / "empty.dcm").touch()
    with pytest.raises(UserError, match=r"empty\.dcm"):
        read_header(tmp_path / "empty.dcm")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rtstruct.dcm", r"without an image \(RT Structure Set Storage\)\. Leave it out"),
        ("test-SR.dcm", r"without an image \(Comprehensive SR Storage\)"),
        ("dicomdirtests/DICOMDIR", r"without an image \(Media Storage Directory Storage\)"),
        ("MR_truncated.dcm", "cut off"),
        ("JPEG-lossy.dcm", r"JPEG Extended \(Process 2 and 4\) \(1\.2\.840\.10008\.1\.2\.4\.51\), cannot be decoded"),
    ],
)
def test_what_is_no_image_is_named(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_picture(SHIPPED / name)


def test_an_unreadable_transfer_syntax_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for syntax, message in (
        ("1.2.840.10008.1.2.4.100", r"no Python package decodes its transfer syntax, MPEG2 .*1\.2\.4\.100.*ffmpeg"),
        ("1.2.840.777", "no Python package decodes its transfer syntax, which the DICOM standard does not list"),
    ):
        path = tmp_path / "video.dcm"
        tags = pydicom.dcmread(SHIPPED / "SC_rgb_jpeg_dcmtk.dcm")
        tags.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        tags.save_as(path)
        with pytest.raises(UserError, match=message):
            read_header(path)
    monkeypatch.setattr("ccd_lightning.data.formats.dicom_file.DECODERS", ())
    monkeypatch.setattr("pydicom.pixels.common.CoderBase.missing_dependencies", ["x - requires nothing"])
    with pytest.raises(UserError, match=r"JPEG 2000 .* install .*pip install 'pydicom"):
        read_header(SHIPPED / "JPEG2000.dcm")


def test_without_pydicom_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(UserError, match=r"CT_small\.dcm: .*pip install 'pydicom"):
        read_header(SHIPPED / "CT_small.dcm")


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a", GREYS.astype(np.uint8), RLELossless)
    tags = pydicom.dcmread(path)
    tags.Rows = tags.Columns = 60_000
    tags.save_as(path)
    with pytest.raises(UserError, match=r"60000 x 60000 pixels, but at most 178,956,970 are read"):
        read_header(path)


def test_deflated_files_are_inflated_within_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dicom(tmp_path / "a", GREYS.astype(np.uint8), DeflatedExplicitVRLittleEndian)
    read_picture(path)
    monkeypatch.setattr("ccd_lightning.data.formats.dicom_file.INFLATION", 400)
    with pytest.raises(UserError, match="deflated content has more than 400 bytes"):
        read_header(path)


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "SC_rgb_jpeg_dcmtk.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_compressed_pixels_that_claim_more_than_the_header_are_not_decoded(name: str, tmp_path: Path) -> None:
    content = (SHIPPED / name).read_bytes()
    if "2000" in name:
        at = content.index(b"\xff\x4f\xff\x51") + 8
        content = content[:at] + (60_000).to_bytes(4, "big") * 2 + content[at + 8 :]
    else:
        at = re.search(rb"\xff(\xc0|\xf7)\0[\x0b\x11]", content).start() + 5  # type: ignore[union-attr]
        content = content[:at] + b"\xee\xee\xee\xee" + content[at + 4 :]
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(UserError, match="compressed pixels"):
        read_picture(tmp_path / "a.dcm")


def mutated(content: bytes, generator: random.Random) -> bytes:
    """A file cut off, with bits turned, or with other lengths."""
    changed = bytearray(content)
    kind = generator.choice(["cut", "turn", "turn", "length", "insert"])
    if kind == "cut":
        return bytes(changed[: generator.randrange(len(changed))])
    for _ in range(generator.choice([1, 3, 30])):
        at = generator.randrange(len(changed) - 4)
        if kind == "turn":
            changed[at] ^= 1 << generator.randrange(8)
        elif kind == "length":
            changed[at : at + 4] = generator.choice(
                [b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", generator.randbytes(4)]
            )
        else:
            changed[at:at] = changed[at : at + 8]
    return bytes(changed)


def attempt(path: Path) -> tuple[Header, Picture] | UserError:
    try:
        return read_header(path), read_picture(path, 0)
    except UserError as error:
        return error


@pytest.mark.parametrize(
    "name",
    ["CT_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "image_dfl.dcm",
     "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm", "rtdose_rle.dcm", "liver_1frame.dcm",
     "SC_ybr_full_422_uncompressed.dcm"],
)  # fmt: skip
def test_damaged_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    content, read = (SHIPPED / name).read_bytes(), 0
    path = tmp_path / "a.dcm"
    for seed in range(20):
        path.write_bytes(mutated(content, random.Random(f"{name} {seed}")))
        found = attempt(path)
        if isinstance(found, UserError):
            assert str(found).startswith(f"{path}: ")
            assert found.__context__ is None or found.__suppress_context__  # whose text a traceback would show
        else:
            header, picture = found
            assert (picture.image.size, picture.image.mode) == (header.size, header.mode)
            read += 1
    assert 0 < read < 20


def test_jp2_boxes_without_a_length_do_not_hold_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    content = (SHIPPED / "GDCMJ2K_TextGBR.dcm").read_bytes()
    at = content.index(b"ftyp") - 4
    path.write_bytes(content[:at] + bytes(4) + content[at + 4 :])
    with pytest.raises(UserError, match="compressed pixels"):
        read_picture(path)


def test_messages_hold_nothing_of_the_tags(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    path = dicom(tmp_path / "a.dcm", GREYS.astype(np.uint16), PatientID="CANARY1", NumberOfFrames=1,
                 RescaleSlope=1, RescaleIntercept=0)  # fmt: skip
    content = path.read_bytes()
    for tag in (b"\x28\x00\x08\x00IS", b"\x28\x00\x53\x10DS", b"\x28\x00\x52\x10DS", b"\x28\x00\x04\x00CS"):
        at = content.index(tag) + 8
        length = int.from_bytes(content[at - 2 : at], "little")
        path.write_bytes(content[:at] + b"CANARY2^CANARY2^"[:length] + content[at + length :])
        found = attempt(path)
        assert isinstance(found, UserError)
        assert "CANARY" not in str(found)
        assert found.__context__ is None or found.__suppress_context__  # which a traceback would show
    assert "CANARY" not in "".join(capfd.readouterr())
    assert not [one for one in recwarn if "CANARY" in str(one.message)]


def test_the_group_is_the_patient_or_else_the_study(tmp_path: Path) -> None:
    pixels = GREYS.astype(np.uint8)

    def group(**tags: Any) -> str | None:
        return read_header(dicom(tmp_path / "a", pixels, **tags)).group

    one = group(PatientID="Doe^Jane")
    assert one is not None
    assert re.fullmatch("patient-[0-9a-f]{12}", one)
    assert group(PatientID="Doe^Jane ", StudyInstanceUID="1.9") == one
    assert group(PatientID="Doe^John") != one
    study = group(PatientID="", StudyInstanceUID="1.2.3")
    assert study is not None
    assert re.fullmatch("study-[0-9a-f]{12}", study)
    assert group(PatientID=None, StudyInstanceUID=None) is None
