"""Finding and decoding images without labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ccd_lightning.cli.predicting import take_images
from ccd_lightning.data.image_files import FileBatches, ImageFiles, find_files, look_for
from ccd_lightning.data.images import read_image
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.errors import UserError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Seven images among what is none."""
    rng = np.random.default_rng(0)
    names = ["a/1.png", "a/2.JPG", "a/deep/er/3.png", "b/1.png", "b/x[1].png", "ä ö/ü.png", "4.tiff"]
    for name in (*names, "a/.hidden.png", "__MACOSX/5.png", ".git/6.png", "a/masks/7.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "a/notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (["a/1.png"], ["a/1.png"]),
        (["b", "a/1.png"], ["b/1.png", "b/x[1].png", "a/1.png"]),
        (["./a/1.png", "a"], ["a/1.png", "a/2.JPG", "a/deep/er/3.png"]),  # each once
        (["."], ["4.tiff", "a/1.png", "a/2.JPG", "a/deep/er/3.png", "b/1.png", "b/x[1].png", "ä ö/ü.png"]),
        (["*/1.png"], ["a/1.png", "b/1.png"]),
        (["a/*"], ["a/1.png", "a/2.JPG", "a/deep/er/3.png", "a/masks/7.png"]),  # asked for, by the pattern
        (["**/*.png"], ["a/1.png", "a/deep/er/3.png", "a/masks/7.png", "b/1.png", "b/x[1].png", "ä ö/ü.png"]),
        (["b/x[1].png"], ["b/x[1].png"]),
        (["a/notes.txt"], ["a/notes.txt"]),  # named: reported as unreadable later
    ],
)
def test_files_folders_and_patterns_are_found(place: Path, places: list[str], expected: list[str]) -> None:
    assert find_files(places) == expected


def test_home_and_absolute_paths(place: Path) -> None:
    assert find_files(["~/b/1.png", str(place / "b/1.png"), "~/b/x*.png"]) == [
        f"{place}/b/1.png",
        f"{place}/b/x[1].png",
    ]


def test_an_earlier_prediction_is_passed_over(place: Path) -> None:
    for name in ("out/overlays/1.png", "out/maps/1.png", "out/own.png"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    assert find_files(["out"]) == ["out/own.png", "out/maps/1.png", "out/overlays/1.png"]
    (place / "out/predictions.csv").touch()
    assert find_files(["out"]) == ["out/own.png"]


def test_what_is_not_scored_is_counted(place: Path) -> None:
    for name in ("a/1_mask.png", "a/x.mha", "b/y.mha.gz", "b/z.mha"):
        (place / name).touch()
    kinds = "3 files of types that are not read (.mha (2), .mha.gz (1))"
    assert look_for(["a", "b", "a"]) == (find_files(["a", "b"]), f"2 masks, {kinds}")
    assert "a/1_mask.png" not in find_files(["a"])
    assert look_for(["a/*", "b/*"])[1] == kinds
    assert look_for(["ä ö"])[1] == ""
    with pytest.raises(UserError, match=r"b/\*\.mha: .*; there is 1 file of types that are not read \(\.mha\)"):
        find_files(["b/*.mha"])


def test_predict_says_what_it_does_not_score(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request, _ = take_images(["predict", "--images", "a"])
    assert request
    assert len(request.paths) == 3
    assert capsys.readouterr().out == "not scored: 1 mask\n"
    take_images(["predict", "--images", "b"])
    assert capsys.readouterr().out == ""


def test_links_to_folders_are_followed_and_loops_end(place: Path) -> None:
    (place / "b/loop").symlink_to(place, target_is_directory=True)
    (place / "b/more").symlink_to(place / "a/deep", target_is_directory=True)
    assert find_files(["b"]) == ["b/1.png", "b/x[1].png", "b/more/er/3.png"]
    assert find_files(["a", "b"])[-1] == "b/x[1].png"  # each image once
    assert len(find_files(["**/*.png"])) == len(find_files(["."])) - 1  # without 4.tiff, 2.JPG, but with a mask


@pytest.mark.parametrize("nothing", ["nowhere", "nowhere/*.png", "a/*.webp", "__MACOSX/.x", "empty"])
def test_folders_without_images_and_missing_files_are_reported(place: Path, nothing: str) -> None:
    (place / "empty").mkdir()
    with pytest.raises(UserError, match=r"(no images in this folder|no such file)") as error:
        find_files(["a", nothing])
    assert str(error.value).startswith(f"{nothing}: ")


def test_batches_are_the_images_in_order_and_bad_ones_are_reported(place: Path) -> None:
    (place / "a/2.JPG").write_bytes((place / "a/2.JPG").read_bytes()[:150])
    paths, preprocessing = find_files(["a", "b"]), Preprocessing(8, (0.25, 0, 1, 1))
    dataset = FileBatches(paths, preprocessing, 2)
    batches = [dataset[number] for number in range(len(dataset))]
    assert [len(batch["path"]) for batch in batches] == [2, 2, 1]
    assert [path for batch in batches for path in batch["path"]] == paths
    reasons = dict(zip(paths, [reason for batch in batches for reason in batch["reason"]], strict=True))
    images = dict(zip(paths, torch.cat([batch["image"] for batch in batches]), strict=True))
    assert reasons.pop("a/2.JPG").startswith("cannot be decoded")
    assert set(reasons.values()) == {""}
    for path in reasons:
        assert np.array_equal(images[path].permute(1, 2, 0).numpy(), read_image(Path(path), preprocessing))


def test_whatever_a_decoder_raises_is_a_reason(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: object) -> None:
        raise IndexError("off the end")

    monkeypatch.setattr("ccd_lightning.data.image_files.read_placed", stumble)
    assert FileBatches(["a/1.png"], Preprocessing(8), 2)[0]["reason"] == ["IndexError: off the end"]


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_keeps_the_order(place: Path, workers: int) -> None:
    paths = find_files(["."])
    batches = list(ImageFiles(paths, Preprocessing(8), 2, workers).predict_dataloader())
    assert [path for batch in batches for path in batch["path"]] == paths


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_ranks_get_every_image_once(place: Path, ranks: int) -> None:
    paths, seen = find_files(["."]), list[str]()
    for rank in range(ranks):
        data = ImageFiles(paths, Preprocessing(8), 2, 0)
        data.trainer = Fake(rank, ranks)  # type: ignore[assignment]
        seen += [path for batch in data.predict_dataloader() for path in batch["path"]]
    assert seen == paths


def test_fewer_images_than_ranks(place: Path) -> None:
    data = ImageFiles(["a/1.png"], Preprocessing(8), 2, 0)
    data.trainer = Fake(1, 2)  # type: ignore[assignment]
    with pytest.raises(UserError, match="1 images for 2 processes"):
        data.predict_dataloader()


class Fake:
    """What a trainer knows of ranks."""

    def __init__(self, rank: int, ranks: int) -> None:
        self.global_rank = rank
        self.world_size = ranks
