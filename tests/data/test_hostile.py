"""Damaged and hostile files: a sentence or a sound image, and never a crash, a hang or more than a gigabyte."""

import io
import json
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from ccd_lightning.data.annotations import read_annotation
from ccd_lightning.data.file_info import inspect
from ccd_lightning.data.formats import read_header, read_picture
from ccd_lightning.data.masks import open_masks
from ccd_lightning.data.stacks import expand_files
from ccd_lightning.errors import UserError
from ccd_lightning.memory import peak_memory, reset_peak_memory

MUTATIONS = 200  # of each format
QUICK = 40  # of these in every run
SECONDS = 10.0  # for one file
GIGABYTE = 10**9


def encoded(kind: str, count: int = 1, **options: Any) -> bytes:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 24, 32, 3), np.uint8).repeat(2, axis=1)
    first, *others = map(Image.fromarray, pixels)
    first.save(
        stream := io.BytesIO(), kind, **options, **({"save_all": True, "append_images": others} if others else {})
    )
    return stream.getvalue()


def sixteen_bits() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 65536, (48, 32)).astype(np.uint16)
    Image.fromarray(pixels).save(stream := io.BytesIO(), "PNG")
    return stream.getvalue()


def volume() -> bytes:
    voxels = np.random.default_rng(0).integers(0, 1000, (16, 16, 8)).astype(np.int16)
    return bytes(nibabel.Nifti1Image(voxels, np.eye(4)).to_bytes())


def packed() -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(volume()) + packer.flush()


def annotations() -> bytes:
    regions = [
        {"id": 1, "image_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]], "bbox": [1, 1, 8, 8]},
        {"id": 2, "image_id": 1, "segmentation": {"counts": [100, 20, 1416], "size": [48, 32]}},
        {"id": 3, "image_id": 1, "segmentation": {"counts": "T3d0X\\1", "size": [48, 32]}},
        {"id": 4, "image_id": 1, "bbox": [2, 3, 4, 5]},
    ]
    images = [{"id": 1, "file_name": "a.png", "width": 32, "height": 48}]
    return json.dumps({"images": images, "annotations": regions}).encode()


FORMATS: dict[str, Callable[[], bytes]] = {
    "a.png": lambda: encoded("PNG"),
    "deep.png": sixteen_bits,
    "a.jpg": lambda: encoded("JPEG"),
    "stack.tif": lambda: encoded("TIFF", 3),
    "packed.tif": lambda: encoded("TIFF", 3, compression="tiff_deflate"),
    "a.gif": lambda: encoded("GIF", 3),
    "a.webp": lambda: encoded("WEBP", 2),
    "a.bmp": lambda: encoded("BMP"),
    "a.nii": volume,
    "a.nii.gz": packed,
    "a.json": annotations,
}


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Truncated, with bits flipped, or with other numbers, most often near the beginning, where headers are."""
    changed = bytearray(content)
    kind = rng.integers(4)
    if kind == 0:
        return bytes(changed[: rng.integers(len(changed))])
    near = min(len(changed), 600 if rng.integers(3) else len(changed))
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(near))
        if kind == 1:
            changed[place] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            number = int(rng.choice([0, 1, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]))
            changed[place : place + 4] = struct.pack(str(rng.choice([">I", "<I"])), number)
        else:
            length = int(rng.integers(1, 64))
            changed[place : place + length] = changed[: int(rng.integers(64))]
    return bytes(changed)


def complaint(reader: Callable[[Path], object], path: Path) -> str:
    """What is said of a file that cannot be read; empty of a sound one."""
    try:
        reader(path)
    except UserError as error:
        return str(error)
    return ""


def read_all(path: Path) -> None:
    """Reads a file in every way; each gives a sound image or a sentence that names the file."""
    if path.suffix == ".json":
        assert read_annotation(path, Path("a.png"), (32, 48)).shape == (48, 32)
        return
    pages = [Path(page) for page in expand_files([str(path)])[0]]
    for page in {pages[0], pages[-1]} if pages else ():
        for reader in (read_header, read_picture, inspect, lambda one: open_masks([one], one)):
            message = complaint(reader, page)
            assert not message or (path.name in message and "\n" not in message)


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, QUICK), pytest.param(QUICK, MUTATIONS, marks=pytest.mark.slow)],  # slow: half a minute for all formats
)
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::ResourceWarning")
def test_mutations_give_a_sentence_or_a_sound_image(name: str, start: int, stop: int, tmp_path: Path) -> None:
    content = FORMATS[name]()
    (file := tmp_path / name).write_bytes(content)
    read_all(file)
    reset_peak_memory()
    before = peak_memory()[0] or 0
    messages = list[str]()
    for number in range(start, stop):
        file = tmp_path / f"{number}_{name}"
        file.write_bytes(mutated(content, np.random.default_rng((number, zlib.crc32(name.encode())))))
        begun = time.monotonic()
        messages.append(complaint(read_all, file))
        assert not messages[-1] or file.name in messages[-1]
        assert time.monotonic() < begun + SECONDS, number
        file.unlink()
    assert (peak_memory()[0] or 0) < before + GIGABYTE


def bomb(path: Path, width: int, height: int) -> Path:
    """A PNG file of a few bytes whose header states this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def test_a_bound_on_pixels_is_reported_from_the_header(tmp_path: Path) -> None:
    file = bomb(tmp_path / "a.png", 100_000, 100_000)
    reset_peak_memory()
    before = peak_memory()[0] or 0
    for reader in (read_header, read_picture, inspect):
        with pytest.raises(UserError, match=r"a\.png: .*more than the 178,956,970 pixels") as caught:
            reader(file)
        assert "\n" not in str(caught.value)
    assert (peak_memory()[0] or 0) < before + GIGABYTE / 10


def test_bytes_that_do_not_fit_into_memory_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccd_lightning.data.formats.bounds.available_memory", lambda: 1e6)
    with pytest.raises(UserError, match=r"a\.png: its pixels in memory: 0\.004 GB are needed, 0\.001 GB are available"):
        read_picture(bomb(tmp_path / "a.png", 1000, 1000))


@pytest.mark.process
def test_pillow_s_warnings_are_not_printed(tmp_path: Path) -> None:
    bomb(tmp_path / "a.png", 10_000, 10_000)  # more than Pillow warns of, and less than what is refused
    code = "from ccd_lightning.data.formats import read_header, Path; print(read_header(Path('a.png')).size)"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(10000, 10000)\n", "")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with pytest.raises(Image.DecompressionBombWarning):
            Image.open(tmp_path / "a.png")
