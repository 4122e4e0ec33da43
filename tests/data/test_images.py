import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from ccd_lightning.data.formats import read_header, read_picture
from ccd_lightning.data.images import load_images, read_image
from ccd_lightning.data.layouts import list_images
from ccd_lightning.data.masks import read_mask
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.errors import UserError

EIGHT = Preprocessing(8)


def ramp(top: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.linspace(0, top, 8)[:, None].repeat(8, axis=1)


def test_images_of_16_bits_are_scaled_to_8(tmp_path: Path) -> None:
    Image.fromarray(ramp(65535).astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(ramp(65535).astype(np.uint16)).save(tmp_path / "a.tif")
    for name in ("a.png", "a.tif"):
        assert np.abs(read_image(tmp_path / name, EIGHT)[:, 0, 0] - ramp(255)[:, 0]).max() <= 1


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_of_an_unknown_range_are_refused(tmp_path: Path, kind: type[np.generic]) -> None:
    Image.fromarray(ramp(1000).astype(kind)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif: pixels of .* export the image with 8 or 16 bits"):
        read_image(tmp_path / "a.tif", EIGHT)


def test_grey_palette_and_alpha_are_read_as_colour(tmp_path: Path) -> None:
    colour = Image.new("RGB", (8, 8), (200, 100, 50))
    for mode in ("L", "LA", "P", "RGBA", "CMYK"):
        colour.convert(mode).save(tmp_path / "a.tif")
        image = read_image(tmp_path / "a.tif", EIGHT)
        assert image.shape == (8, 8, 3)
        if mode not in ("L", "LA"):
            assert np.abs(image.mean(axis=(0, 1)) - (200, 100, 50)).max() < 10, mode  # a palette dithers


def test_twelve_bits_in_sixteen_are_reported(tmp_path: Path) -> None:
    Image.fromarray(ramp(4095).astype(np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: 16 bits of which few values are used \(0 to 4095\)"):
        read_image(tmp_path / "a.png", EIGHT)


def grey_tiff(path: Path, values: np.ndarray[Any, Any], bits: int, photometric: int) -> Path:
    """Writes grey values of 8, 12 or 16 bits, which Pillow writes neither inverted nor with 12."""
    if bits == 12:
        first, second = values.astype(np.uint16).reshape(-1, 2).T
        data = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1).astype(np.uint8).tobytes()
    else:
        data = values.astype(f"<u{bits // 8}").tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: height, 279: len(data)}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data)
    return path


@pytest.mark.parametrize(("bits", "photometric"), [(8, 0), (8, 1), (12, 1), (16, 0), (16, 1)])
def test_a_tiff_file_says_its_depth_and_whether_white_is_0(bits: int, photometric: int, tmp_path: Path) -> None:
    top = 2**bits - 1
    file = grey_tiff(tmp_path / "a.tif", ramp(top).round(), bits, photometric)
    assert read_picture(file).full == (None if bits == 8 else (0, top))
    shown = read_image(file, Preprocessing(8, window="full"))[:, 0, 0].astype(int)
    expected = ramp(255)[:, 0] if photometric else 255 - ramp(255)[:, 0]
    assert np.abs(shown - expected).max() <= 1


def png_of_16(path: Path, values: np.ndarray[Any, Any], colour: int) -> Path:
    """Writes values (height, width, channels), which Pillow cannot, turned by a quarter when they are shown."""
    exif = Image.Exif()
    exif[0x0112] = 6
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    chunks = {b"IHDR": header, b"eXIf": exif.tobytes()[6:], b"IDAT": zlib.compress(rows), b"IEND": b""}
    parts = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def test_grey_of_sixteen_bits_with_alpha_is_not_cut_to_eight(tmp_path: Path) -> None:
    grey = np.arange(64, dtype=np.uint16).reshape(8, 8) * 4
    file = png_of_16(tmp_path / "a.png", np.stack([grey + 600, grey * 200], axis=-1), 4)
    assert read_header(file).mode == "I;16"
    found = read_picture(file)
    assert found.full == (0.0, 65535.0)
    assert np.array_equal(np.asarray(found.image), np.rot90(grey + 600, -1))
    assert np.array_equal(read_image(file, Preprocessing(8, window=(600, 855)))[:, :, 0], np.rot90(grey, -1))
    file.write_bytes(file.read_bytes()[:120])
    with pytest.raises(UserError, match=r"a\.png: cannot be decoded"):
        read_picture(file)


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB;16"), (4, "RGBA;16")])
def test_colour_of_sixteen_bits_is_reported(channels: int, mode: str, tmp_path: Path) -> None:
    values = np.arange(64 * channels, dtype=np.uint16).reshape(8, 8, channels) * 256
    file = png_of_16(tmp_path / "a.png", values, 2 if channels == 3 else 6)
    assert read_header(file).mode == mode
    assert np.array_equal(np.asarray(read_picture(file).image), np.rot90(values >> 8, -1))
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    assert read_header(tmp_path / "a.tif").mode == mode


def masks() -> dict[str, Image.Image]:
    half = np.zeros((8, 8), np.uint8)
    half[:4] = 1
    palette = Image.fromarray(half).convert("P")
    palette.putpalette([0, 0, 0, 10, 10, 10])
    swapped = Image.fromarray(1 - half).convert("P")
    swapped.putpalette([255, 255, 255, 0, 0, 0])  # white has the index 0
    red = np.zeros((8, 8, 3), np.uint8)
    red[:4, :, 0] = 255
    soft = np.where(half, 230, 90).astype(np.uint8)
    return {
        "0 and 255": Image.fromarray(half * 255),
        "0 and 1": Image.fromarray(half),
        "one bit": Image.fromarray(half * 255).convert("1"),
        "palette": palette,
        "palette of white and black": swapped,
        "0 and 1 in 16 bits": Image.fromarray(half.astype(np.uint16)),
        "0 and 1 in 32 bits": Image.fromarray(half.astype(np.int32)),
        "red": Image.fromarray(red),
        "soft": Image.fromarray(soft),
        "16 bits": Image.fromarray(half.astype(np.uint16) * 65535),
    }


@pytest.mark.parametrize("name", masks())
def test_masks_of_any_encoding_are_read_alike(tmp_path: Path, name: str) -> None:
    masks()[name].save(tmp_path / "mask.tif")
    mask = read_mask([tmp_path / "mask.tif"], tmp_path / "mask.tif", EIGHT)
    assert mask.dtype == np.bool_
    assert mask[:4].all()
    assert not mask[4:].any()


def test_what_lies_outside_of_the_crop_decides_too(tmp_path: Path) -> None:
    values = np.full((8, 8), 20, np.uint8)
    values[:, 4:] = 255
    Image.fromarray(values).save(tmp_path / "mask.png")
    assert not read_mask([tmp_path / "mask.png"], tmp_path / "mask.png", Preprocessing(8, (0.0, 0.0, 0.5, 1.0))).any()


def test_an_empty_mask_stays_empty(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "mask.png")
    assert not read_mask([tmp_path / "mask.png"], tmp_path / "mask.png", EIGHT).any()


def test_crop_is_a_fraction_and_mask_follows(tmp_path: Path) -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[25:75, 50:150] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    preprocessing = Preprocessing(10, (0.25, 0.25, 0.75, 0.75))
    assert (read_image(tmp_path / "a.png", preprocessing) == 255).all()
    assert read_mask([tmp_path / "a.png"], tmp_path / "a.png", preprocessing).all()
    assert read_mask([tmp_path / "a.png"], tmp_path / "a.png", Preprocessing(20)).mean() == 0.25


def test_cache_on_disk_is_the_same_and_follows_changes(folder: Path, tmp_path: Path) -> None:
    paths, cache = list_images(folder / "train/good"), tmp_path / "cache"
    plain = load_images(paths, Preprocessing(16)).pixels
    for _ in range(2):
        assert np.array_equal(load_images(paths, Preprocessing(16), cache).pixels, plain)
    assert len(list(cache.iterdir())) == 2, "pixels and places"
    Image.new("RGB", (64, 64), (255, 0, 0)).save(paths[0])
    changed = load_images(paths, Preprocessing(16), cache).pixels
    assert (changed[0].transpose(1, 2, 0) == (255, 0, 0)).all()
    assert np.array_equal(changed[1:], plain[1:])


def test_cache_of_a_broken_file_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    paths, cache = list_images(folder / "train/good"), tmp_path / "cache"
    paths[4].write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"0004\.png"):
        load_images(paths, Preprocessing(16), cache)
    assert list(cache.iterdir()) == []


def test_the_exif_orientation_turns_image_and_mask(tmp_path: Path) -> None:
    pixels = np.zeros((24, 48, 3), np.uint8)
    pixels[:12, :24] = 255  # bright in the upper left quarter
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise: then in the upper right one
    for name in ("a.jpg", "a.png", "a.tif"):
        Image.fromarray(pixels).save(tmp_path / name, exif=exif)
        assert read_header(tmp_path / name).size == (24, 48)
        mask = read_mask([tmp_path / name], tmp_path / name, EIGHT)
        assert np.argwhere(mask).min(axis=0).tolist() == [0, 4], name
        assert np.argwhere(mask).max(axis=0).tolist() == [3, 7], name
        assert ((read_image(tmp_path / name, EIGHT)[:, :, 0] > 127) == mask).all()


def test_a_dim_attention_map_is_cut_at_half_of_its_own_maximum(tmp_path: Path) -> None:
    Image.fromarray(ramp(100).astype(np.uint8).repeat(4, 0).repeat(4, 1)).save(tmp_path / "few.png")
    assert (
        read_mask([tmp_path / "few.png"], tmp_path / "few.png", EIGHT)[:, 0].tolist() == [False] + [True] * 7
    )  # eight values: labels
    Image.fromarray(np.linspace(0, 100, 64, dtype=np.uint8)[:, None].repeat(64, 1)).save(tmp_path / "map.png")
    assert read_mask([tmp_path / "map.png"], tmp_path / "map.png", EIGHT)[:, 0].tolist() == [False] * 4 + [True] * 4


def test_digests_of_older_versions_stay_as_they_are() -> None:
    assert Preprocessing(64, (0.1, 0, 0.9, 1), (0.0, 9.0)).key == "Geometry(size=64, crop=(0.1, 0, 0.9, 1))"
    assert Preprocessing(64).key == "Geometry(size=64, crop=None)"
