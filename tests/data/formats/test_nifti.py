"""NIfTI volumes are read slice by slice, as a radiologist sees them, and nothing in a header is believed."""

import gzip
import struct
import threading
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from ccd_lightning.data.formats import nifti, nifti_file, volumes
from ccd_lightning.errors import UserError

RAS = np.eye(4)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write(path: Path, voxels: Any, affine: Any = RAS, slope: float | None = None, inter: float = 0.0) -> Path:
    """Writes stored values as they are, with a slope and an intercept beside them."""
    image = nibabel.Nifti1Image(np.asarray(voxels), affine)
    nibabel.save(image, path)
    if slope is not None:
        content = bytearray(path.read_bytes())
        content[112:120] = struct.pack("<ff", slope, inter)
        path.write_bytes(content)
    return path


def body(rng: np.random.Generator, shape: tuple[int, int, int] = (5, 6, 7)) -> Any:
    """Voxels from left to right, from back to front and upwards."""
    return rng.integers(0, 256, shape).astype(np.uint8)


# Which way each axis of the file runs: nibabel's codes, and voxels of the body laid out so.
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR", "AIL", "SRA", "LAS"])
def test_a_slice_lies_as_a_radiologist_sees_it_whatever_the_order_in_the_file(codes: str, tmp_path: Path) -> None:
    voxels = body(np.random.default_rng(0))
    target = nibabel.orientations.axcodes2ornt(tuple(codes))
    transform = nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt(tuple("RAS")), target)
    image = nibabel.Nifti1Image(voxels, RAS).as_reoriented(transform)
    nibabel.save(image, file := tmp_path / "a.nii.gz")

    def shown(number: int, axis: int) -> Any:
        return np.asarray(nifti.read_picture(file, number, axis).image)

    right, front, up = 1, 2, 3
    axial, coronal, sagittal = shown(up, 2), shown(front, 1), shown(right, 0)
    assert axial.shape == (6, 5)
    assert coronal.shape == (7, 5)
    assert sagittal.shape == (7, 6)
    assert axial[6 - 1 - front, 5 - 1 - right] == voxels[right, front, up]  # front above, patient's right on the left
    assert coronal[7 - 1 - up, 5 - 1 - right] == voxels[right, front, up]  # head above, patient's right on the left
    assert sagittal[7 - 1 - up, 6 - 1 - front] == voxels[right, front, up]  # head above, front on the left
    for axis, (size, pages) in enumerate((((6, 7), 5), ((5, 7), 6), ((5, 6), 7))):
        header = nifti.read_header(file, axis)
        assert (header.size, header.pages, header.mode) == (size, pages, "L")


def test_what_is_written_to_the_view_of_a_slice_is_read_as_that_slice(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    file = write(tmp_path / "a.nii", body(rng).transpose(2, 0, 1), LPS[:, [2, 0, 1, 3]])
    volume = nifti.read_volume(file)
    for axis in nifti_file.AXES:
        maps = rng.random((volume.body_shape[axis], *volume.slice_size(axis)[::-1])).astype(np.float32)
        voxels = np.zeros(volume.shape, np.float32)
        for number, one in enumerate(maps):
            nifti.view_slice(voxels, volume.orientation, number, axis)[...] = one
        written = write(tmp_path / f"maps{axis}.nii.gz", voxels, volume.affine)
        for number, one in enumerate(maps):
            assert np.array_equal(np.asarray(nifti.read_picture(written, number, axis).image), one)


@pytest.mark.parametrize(
    ("kind", "slope", "inter", "mode", "full"),
    [
        ("uint8", None, 0, "L", (0, 255)),
        ("int8", None, 0, "I", (-128, 127)),
        ("int16", None, 0, "I", (-32768, 32767)),
        (">i2", None, 0, "I", (-32768, 32767)),
        ("uint16", None, 0, "I;16", (0, 65535)),
        ("int32", None, 0, "I", (-(2**31), 2**31 - 1)),
        ("uint32", None, 0, "F", (0, 2**32 - 1)),
        ("float32", None, 0, "F", None),
        ("float64", None, 0, "F", None),
        ("uint16", 1, -1024, "I", (-1024, 65535 - 1024)),
        ("int16", 0.5, 10, "F", (-16374, 16393.5)),
        ("int16", -2, 0, "I", (-65534, 65536)),
    ],
)
def test_values_are_in_the_units_of_the_file(
    kind: str, slope: float | None, inter: float, mode: str, full: Any, tmp_path: Path
) -> None:
    voxels = np.random.default_rng(0).integers(0, 100, (4, 5, 2)).astype(kind)
    file = write(tmp_path / "a.nii", voxels, LPS, slope, inter)
    picture = nifti.read_picture(file, 1)
    assert picture.image.mode == nifti.read_header(file).mode == mode
    assert picture.full == full
    assert np.allclose(np.asarray(picture.image), voxels[:, :, 1].T.astype(float) * (slope or 1) + inter)


def test_colours_are_read_and_complex_numbers_are_not(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    colours = np.zeros((5, 6, 1), np.dtype([(name, "u1") for name in "RGB"]))
    for index, name in enumerate("RGB"):
        colours[name][:, :, 0] = pixels[:, :, index].T
    nibabel.save(nibabel.Nifti1Image(colours, LPS), file := tmp_path / "a.nii.gz")
    assert np.array_equal(np.asarray(nifti.read_picture(file).image), pixels)
    assert nifti.read_header(file)[:3] == ((5, 6), 1, "RGB")
    with pytest.raises(UserError, match=r"b\.nii: voxels of the type complex64"):
        nifti.read_header(write(tmp_path / "b.nii", np.zeros((3, 3, 3), np.complex64)))


def test_the_number_of_dimensions_is_named_where_it_is_not_three(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"t\.nii: a volume of the shape 4 x 5 x 6 x 3, but three"):
        nifti.read_header(write(tmp_path / "t.nii", np.zeros((4, 5, 6, 3), np.uint8)))
    assert nifti.read_header(write(tmp_path / "one.nii", np.zeros((4, 5, 6, 1), np.uint8))).pages == 6
    flat = write(tmp_path / "flat.nii", np.arange(20, dtype=np.uint8).reshape(4, 5), LPS)
    assert np.asarray(nifti.read_picture(flat).image).tolist() == np.arange(20).reshape(4, 5).T.tolist()


def test_a_slice_has_to_be_named_and_there(tmp_path: Path) -> None:
    file = write(tmp_path / "a.nii", np.zeros((4, 5, 6), np.uint8))
    with pytest.raises(UserError, match=r"a\.nii: 6 axial slices in one file, .* such as a\.nii\[3\]"):
        nifti.read_picture(file)
    with pytest.raises(UserError, match=r"a\.nii\[5\]: no such slice; there are 5 coronal ones"):
        nifti.read_picture(file, 5, axis=1)


def test_slices_of_one_value_are_empty(tmp_path: Path) -> None:
    voxels = np.full((4, 5, 6), -1000.0, np.float32)
    voxels[1, 1, 2], voxels[:, :, 4], voxels[0, 0, 0] = 0, 7, np.nan
    assert nifti.occupied_slices(write(tmp_path / "a.nii.gz", voxels)) == [2]
    assert nifti.occupied_slices(tmp_path / "a.nii.gz", axis=0) == [0, 1, 2, 3]  # slice 4 crosses all of them


def test_masks_of_every_type_are_read(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (4, 5, 2))
    expected = (labels[:, :, 1] > 0).T
    for kind in ("uint8", "int16", "float32"):
        assert np.array_equal(nifti.read_mask(write(tmp_path / f"{kind}.nii", labels.astype(kind), LPS), 1), expected)
    nibabel.save(image := nibabel.Nifti1Image(labels.astype(np.float32), LPS), tmp_path / "scaled.nii")
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "scaled.nii")
    assert nifti.read_volume(tmp_path / "scaled.nii").slope != 1  # 0 is stored as about 0
    assert np.array_equal(nifti.read_mask(tmp_path / "scaled.nii", 1), expected)
    shares = write(tmp_path / "shares.nii", labels.astype(np.float32) / 3, LPS)
    assert np.array_equal(nifti.read_mask(shares, 1), (labels[:, :, 1] >= 2).T)


def test_whether_a_mask_holds_probabilities_is_decided_for_all_of_its_slices(tmp_path: Path) -> None:
    values = np.zeros((4, 4, 2), np.float32)
    values[0, :, 0], values[0, :, 1] = 0.25, 3  # the first slice alone could be of probabilities
    labels = write(tmp_path / "labels.nii", values)
    assert [int(nifti.read_mask(labels, page).sum()) for page in (0, 1)] == [4, 4]
    values[0, :, 1] = 0, 0.75, 0.75, 0.25
    shares = write(tmp_path / "shares.nii", values)
    assert [int(nifti.read_mask(shares, page).sum()) for page in (0, 1)] == [0, 2]


def test_a_volume_is_unpacked_once_for_all_slices_and_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, real = list[Path](), nifti_file._read_voxels

    def read(file: Path, volume: nifti_file.Volume) -> Any:
        opened.append(file)
        return real(file, volume)

    monkeypatch.setattr(nifti_file, "_read_voxels", read)
    file = write(tmp_path / "a.nii.gz", np.random.default_rng(0).random((8, 8, 8)))
    threads = [threading.Thread(target=nifti.read_picture, args=(file, number)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [file]
    write(file, np.zeros((8, 8, 8)))  # another file of this name
    assert not np.asarray(nifti.read_picture(file, 3).image).any()


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    cache, reads = volumes.VolumeCache(limit=250), list[str]()

    def read(name: str) -> Any:
        reads.append(name)
        return np.zeros(100, np.uint8)

    for name in "abc":
        (tmp_path / name).touch()
    for name in "abacaba":  # c takes the place of b, the one that was used least lately
        cache.get(tmp_path / name, partial(read, name))
    assert "".join(reads) == "abcb"


def damaged(file: Path, offset: int, change: bytes) -> Path:
    """A copy of a file with other bytes."""
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rb") as stream:
        content = bytearray(stream.read())
    content[offset : offset + len(change)] = change
    other = file.with_name(f"damaged_{file.name}")
    with opener(other, "wb") as stream:
        stream.write(bytes(content))
    return other


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_header_that_lies_is_reported_before_memory_is_taken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / name, np.zeros((8, 8, 8), np.int16))
    monkeypatch.setattr(nifti_file, "_read_voxels", lambda *_: pytest.fail("voxels are read"))
    for offset, change, message in (
        (42, struct.pack("<3h", 2000, 2000, 2000), "more than the file can hold"),
        (42, struct.pack("<3h", -8, 8, 8), "cannot be read|three dimensions"),
        (42, struct.pack("<3h", 30000, 30000, 1), "30000 x 30000 pixels"),
        (108, struct.pack("<f", 1e9), "voxels do not begin"),
        (344, b"no\0\0", "does not begin like a NIfTI"),
        (70, struct.pack("<h", 999), "cannot be read"),
        (280, struct.pack("<12f", *[0.0] * 12), "affine"),
        (280, struct.pack("<12f", *[np.nan] * 12), "affine"),
    ):
        with pytest.raises(UserError, match=message):
            nifti.read_header(damaged(file, offset, change))


def test_what_is_truncated_is_reported(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 1000, (16, 16, 16)).astype(np.int16)
    for name in ("a.nii", "a.nii.gz"):
        file = write(tmp_path / name, voxels)
        for size in (0, 10, 300, 360, 1000, file.stat().st_size - 30):
            (cut := tmp_path / f"cut_{size}_{name}").write_bytes(file.read_bytes()[:size])
            with pytest.raises(UserError, match=f"cut_{size}_{name}: "):
                nifti.read_picture(cut, 3)


def test_the_limit_on_bytes_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccd_lightning.data.formats.bounds.MAX_BYTES", 1000)
    with pytest.raises(UserError, match=r"a\.nii: 1,024 bytes of pixels, but no more than 1,000"):
        nifti.read_header(write(tmp_path / "a.nii", np.zeros((8, 8, 8), np.int16)))


def test_without_nibabel_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.nii", np.zeros((8, 8, 8), np.int16))
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(UserError, match=r"pip install 'nibabel>="):
        nifti.read_header(file)


def test_a_slice_equals_the_same_image_as_png(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for name, affine, voxels in (("lps", LPS, pixels.T), ("ras", RAS, pixels.T[::-1, ::-1])):
        file = write(tmp_path / f"{name}.nii", voxels[:, :, None].repeat(3, axis=2), affine)
        assert np.array_equal(np.asarray(nifti.read_picture(file, 1).image), np.asarray(Image.open(tmp_path / "a.png")))
