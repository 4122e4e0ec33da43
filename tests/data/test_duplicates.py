import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.duplicates import CHUNK, COPY, find_duplicates, shared_groups
from ccd_lightning.data.file_info import SIDE, ImageInfo, inspect, inspect_files
from ccd_lightning.data.manifest import Manifest, Row
from ccd_lightning.data.synthetic import render
from ccd_lightning.errors import UserError
from tests.data.fakes import picture


def frame(seed: int, size: int = 160) -> Image.Image:
    return Image.fromarray(render("fundus", "good", np.random.default_rng(seed), size).image)


def manifest(root: Path, train: list[Path], test: list[Path]) -> Manifest:
    return Manifest(root, [*(Row(path, "train") for path in train), *(Row(path, "test") for path in test)])


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (None, "look the same (thumbnails"),
        (Image.Transpose.FLIP_LEFT_RIGHT, "look the same, if one is mirrored (thumbnails"),
        (Image.Transpose.FLIP_TOP_BOTTOM, "look the same, if one is turned and mirrored (thumbnails"),
        (Image.Transpose.ROTATE_90, "look the same, if one is turned (thumbnails"),
        (Image.Transpose.TRANSPOSE, "look the same, if one is turned and mirrored (thumbnails"),
    ],
)
def test_copies_saved_again_mirrored_or_turned_are_found(
    turn: Image.Transpose | None, message: str, tmp_path: Path
) -> None:
    for index in range(4):
        frame(index).save(tmp_path / f"{index}.png")
    other = frame(2) if turn is None else frame(2).transpose(turn)
    other.save(tmp_path / "copy.jpg", quality=75)
    train, test = [tmp_path / f"{index}.png" for index in (0, 1, 2)], [tmp_path / "3.png", tmp_path / "copy.jpg"]
    infos = {path: inspect(path) for path in train + test}
    (pair,) = find_duplicates(manifest(tmp_path, train, test), infos)
    assert (pair.train, pair.test) == (train[2], test[1])
    assert pair.reason.startswith(message)
    assert not find_duplicates(manifest(tmp_path, train, test), infos, similar=False)
    assert pair.is_leak
    assert pair.similarity >= COPY


def test_the_same_bytes_are_found_even_without_anything_to_see(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 40), "black").save(tmp_path / name)
    Image.new("RGB", (44, 40), "black").save(tmp_path / "c.png")
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    infos = dict(inspect_files(paths))
    (pair,) = find_duplicates(
        manifest(tmp_path, [paths[0]], paths[1:]),
        {path: one for path, one in infos.items() if isinstance(one, ImageInfo)},
    )
    assert pair[:2] == (paths[0], paths[1])
    assert pair.reason == "are the same file"


def test_every_pair_of_many_is_compared_by_correlation() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (7, SIDE, SIDE))
    thumbnails = [
        np.clip(base[rng.integers(7)] + rng.normal(0, rng.choice([2, 8, 200]), (SIDE, SIDE)), 0, 255).astype(np.uint8)
        for _ in range(CHUNK + 60)
    ]
    paths = [Path(f"{index}") for index in range(len(thumbnails))]
    infos = {
        path: ImageInfo((1, 1), "RGB", 1, str(path).encode(), thumbnail)
        for path, thumbnail in zip(paths, thumbnails, strict=True)
    }
    found = find_duplicates(manifest(Path(), paths[:-40], paths[-40:]), infos)
    assert len(found) > 100
    values = np.corrcoef([thumbnail.ravel() for thumbnail in thumbnails])[:-40, -40:]
    assert {(int(str(pair.train)), int(str(pair.test)) - len(paths) + 40) for pair in found} == {
        (int(row), int(column)) for row, column in np.argwhere(values >= 0.99)
    }
    assert [pair.similarity for pair in found] == sorted((pair.similarity for pair in found), reverse=True)


def test_groups_in_training_and_test_images_are_found() -> None:
    rows = [
        Row(Path("a"), "train", group="patient1"),
        Row(Path("b"), "train"),
        Row(Path("c"), "test", group="patient1"),
    ]
    rows += [Row(Path("d"), "test", "polyp", group="patient2"), Row(Path("e"), "train", group="patient3")]
    (pair,) = shared_groups(Manifest(Path(), rows))
    assert (str(pair.train), str(pair.test), pair.reason, pair.is_leak) == ("a", "c", "are both of patient1", True)


def test_a_fit_with_a_leak_is_refused(tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"train/good/{index}.png") for index in range(8)]
    picture(tmp_path / "test/good/0.png")
    buffer = io.BytesIO()
    ImageOps.mirror(Image.open(paths[3])).save(buffer, "PNG")
    polyp = tmp_path / "test/polyp/0.png"
    polyp.parent.mkdir()
    polyp.write_bytes(buffer.getvalue())
    with pytest.raises(
        UserError,
        match=rf"training image {paths[3]} and test image {polyp} look the same, if one is mirrored"
        r" \(thumbnails of 32 px correlate by 1\.000\)\. Remove one .*check_leaks files",
    ):
        AnomalyDataModule(str(tmp_path), size=32).setup("fit")
    AnomalyDataModule(str(tmp_path), size=32, check_leaks=False).setup("fit")
    AnomalyDataModule(str(tmp_path), size=32, check_leaks="files").setup("fit")
    AnomalyDataModule(str(tmp_path), size=32).setup("test")


def test_inspecting_a_file_gives_its_size_mode_and_orientation(tmp_path: Path) -> None:
    image = frame(0).crop((0, 0, 160, 120))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    seen = inspect(tmp_path / "turned.jpg")
    assert (seen.size, seen.mode, seen.orientation) == ((120, 160), "RGB", 6)
    upright = np.asarray(image.rotate(-90, expand=True).convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    assert np.corrcoef(seen.thumbnail.ravel(), upright.ravel())[0, 1] > 0.999
    content = (tmp_path / "turned.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cut\.jpg: cannot be decoded"):
        inspect(tmp_path / "cut.jpg")
