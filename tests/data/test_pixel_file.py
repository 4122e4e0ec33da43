"""Decoded images in a file, and which are kept in one."""

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccd_lightning.data import images as images_module
from ccd_lightning.data.images import Images, load_images
from ccd_lightning.data.pixel_file import PixelFile
from ccd_lightning.data.preprocessing import Preprocessing

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 6), np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> PixelFile:
    np.save(tmp_path / "pixels.npy", PIXELS)
    return PixelFile(tmp_path / "pixels.npy")


@pytest.mark.parametrize("preadv", [True, False])
def test_a_pixel_file_is_indexed_like_an_array(file: PixelFile, preadv: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not preadv:
        monkeypatch.delattr("os.preadv")
    assert (len(file), file.shape, file.dtype) == (5, PIXELS.shape, PIXELS.dtype)
    for index in (0, 4, -1, slice(1, 5, 2), slice(None), np.array([3, 3, 0])):
        assert np.array_equal(file[index], PIXELS[index])
    assert np.array_equal(np.asarray(file), PIXELS)
    assert [int(image.sum()) for image in file] == PIXELS.sum(axis=(1, 2, 3)).tolist()  # type: ignore[attr-defined]
    with pytest.raises(IndexError):
        file[5]


def test_a_copy_for_another_process_is_small(file: PixelFile) -> None:
    sent = pickle.dumps(file)
    assert len(sent) < 500
    assert np.array_equal(pickle.loads(sent)[:], PIXELS)


@pytest.mark.parametrize("damage", ["cut", "longer", "text", "float", "flat"])
def test_other_files_are_refused(file: PixelFile, damage: str) -> None:
    if damage in ("cut", "longer"):
        content = file.path.read_bytes()
        file.path.write_bytes(content[:-1] if damage == "cut" else content + b"0")
    elif damage == "text":
        file.path.write_text("no array")
    else:
        np.save(file.path, PIXELS.astype(np.float32) if damage == "float" else PIXELS[0])
    with pytest.raises(ValueError):  # noqa: PT011  (NumPy's own, or ours)
        PixelFile(file.path)


def test_a_file_that_is_cut_off_while_it_is_in_use_is_an_error(file: PixelFile) -> None:
    with file.path.open("r+b") as stream:
        stream.truncate(file.path.stat().st_size - 1)
    assert np.array_equal(file[3], PIXELS[3])
    with pytest.raises(OSError, match=r"pixels\.npy: it became shorter"):
        file[4]


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = [tmp_path / f"{index}.png" for index in range(5)]
    for path, pixels in zip(found, PIXELS, strict=True):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
    return found


def load(paths: list[Path], processes: int = 1, pickled: bool = False) -> Images:
    return load_images(paths, Preprocessing((4, 6)), None, processes, pickled)


def test_many_images_are_kept_in_the_users_cache(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "IN_MEMORY", PIXELS.nbytes)
    assert isinstance(load(paths).pixels, np.ndarray)
    assert not (paths[0].parent / "cache").exists()
    for found in (load(paths, processes=2), load(paths, pickled=True)):  # the second one finds what the first one made
        assert isinstance(found.pixels, PixelFile)
        assert np.array_equal(found.pixels[:], PIXELS)
    folder = paths[0].parent / "cache" / "ccd-lightning" / "images"
    assert sorted(path.suffix for path in folder.iterdir()) == [".npy", ".npy"]
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.process
def test_workers_that_are_not_forked_read_the_file(paths: list[Path], method: str) -> None:
    pixels = load(paths, pickled=True).pixels
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert np.array_equal(pool.apply(np.asarray, (pixels,)), PIXELS)
