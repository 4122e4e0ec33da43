"""Maps of volumes lie over their source, whatever order and direction its voxels have."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from ccd_lightning.data.formats import read_picture
from ccd_lightning.data.sources import page_of
from ccd_lightning.errors import UserError
from ccd_lightning.visualization.volume_maps import require_volumes, write_slice

AFFINES = {
    "RAS": np.diag([1.0, 2.0, 3.0, 1.0]),
    "LPS": np.diag([-1.0, -2.0, 3.0, 1.0]),
    "mixed": np.array([[0, 0, 2.0, 5], [-1.5, 0, 0, 7], [0, 1.0, 0, -3], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", AFFINES)
def test_slices_are_put_back_into_the_volume_unchanged(name: str, axis: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(1, 9, (5, 6, 7)).astype(np.float32)
    source, target = tmp_path / "scan.nii.gz", tmp_path / "map.nii"
    image = nibabel.Nifti1Image(values, AFFINES[name])
    image.header["descrip"] = b"JANE DOE"
    nibabel.save(image, source)
    count = {"RAS": (5, 6, 7), "LPS": (5, 6, 7), "mixed": (7, 5, 6)}[name][axis]

    def write(number: int) -> None:
        slice_path = page_of(source, number, axis)
        write_slice(target, slice_path, np.asarray(read_picture(slice_path).image))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, reversed(range(count))))
    found: Any = nibabel.load(target)
    assert np.array_equal(np.asarray(found.dataobj), values)
    assert np.allclose(found.affine, AFFINES[name])
    assert nibabel.aff2axcodes(found.affine) == nibabel.aff2axcodes(AFFINES[name])
    assert b"JANE" not in target.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_slices_that_are_not_written_are_zero(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 3), np.int16), np.eye(4)), tmp_path / "scan.nii")
    write_slice(tmp_path / "map.nii", tmp_path / "scan.nii[1]", np.full((4, 4), 2, np.float32))
    image: Any = nibabel.load(tmp_path / "map.nii")
    found = np.asarray(image.dataobj)
    assert found.sum() == 32
    assert (found[:, :, 1] == 2).all()


def test_images_that_are_no_volumes_are_refused() -> None:
    with pytest.raises(UserError, match=r"a\.png: not a NIfTI volume, so its map cannot be one\. Give --maps tiff"):
        require_volumes(["b.nii.gz[0]", "a.png"])


def test_many_threads_lose_no_slice(tmp_path: Path) -> None:
    count, depth = 12, 16
    for number in range(count):
        nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, depth), np.int16), np.eye(4)), tmp_path / f"{number}.nii")

    def write(task: int) -> None:
        number, place = divmod(task, depth)
        source = tmp_path / f"{number}.nii[{place}]"
        write_slice(tmp_path / f"map{number}.nii", source, np.full((4, 4), place + 1, np.float32))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(count * depth)))
    for number in range(count):
        image: Any = nibabel.load(tmp_path / f"map{number}.nii")
        assert np.asarray(image.dataobj)[0, 0].tolist() == list(range(1, depth + 1))
