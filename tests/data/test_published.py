import json
import shutil
from pathlib import Path

import pytest

from ccd_lightning.cli import main
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.manifest import Manifest
from ccd_lightning.data.published import draw_split, group_of
from ccd_lightning.data.recognition import LAYOUTS, describe, read_layout
from ccd_lightning.data.sets import LAG, Folder, HyperKvasir
from ccd_lightning.errors import UserError
from tests.data.fakes import FAKES, authors, hyper_kvasir, lag, medianomaly, picture, two_folders

CONFIGS = Path(__file__).parents[2] / "configs"


def sizes(manifest: Manifest) -> tuple[int, int, int, int]:
    counts = [
        sum(row.split == split and row.label == label for row in manifest.rows)
        for split, label in (("train", 0), ("test", 0), ("test", 1))
    ]
    return counts[0], counts[1], counts[2], sum(row.mask is not None for row in manifest.rows)


@pytest.mark.parametrize("name", FAKES)
def test_each_layout_is_recognised_and_read(name: str, tmp_path: Path) -> None:
    make, expected = FAKES[name]
    make(tmp_path)
    manifest, layout = read_layout(tmp_path)
    assert layout == name
    assert sizes(manifest) == expected
    assert sizes(read_layout(tmp_path, name, masks=False)[0]) == (*expected[:3], 0)
    assert [one.name for one in LAYOUTS if one.matches(tmp_path)] == [name]
    assert len({row.path for row in manifest.rows}) == sum(expected[:3])
    assert all(row.path.is_file() for row in manifest.rows)


def test_kvasir_s_polyps_are_the_segmented_ones_and_nothing_else_is_normal(tmp_path: Path) -> None:
    hyper_kvasir(tmp_path)
    rows = read_layout(tmp_path)[0].rows
    assert {row.path.parent.name for row in rows if not row.label} == {"cecum", "ileum", "bbps-2-3"}
    assert {row.kind for row in rows if row.label} == {"polyp"}
    assert all(row.mask and row.mask.stem == row.path.stem for row in rows if row.label)
    nested = tmp_path / "unpacked" / "hyper-kvasir"
    nested.mkdir(parents=True)
    for folder in ("labeled-images", "segmented-images"):
        shutil.move(tmp_path / folder, nested / folder)
    assert sizes(read_layout(tmp_path)[0]) == FAKES["hyper_kvasir"][1]


def test_splits_are_drawn_by_seed_and_names_alone(tmp_path: Path) -> None:
    lag(tmp_path)
    first, again, other = (read_layout(tmp_path, seed=seed)[0].rows for seed in (0, 0, 1))
    assert first == again
    assert {row.path for row in first if row.split == "test"} != {row.path for row in other if row.split == "test"}


def test_a_video_is_on_one_side(tmp_path: Path) -> None:
    two_folders(tmp_path)
    for seed in range(5):
        splits: dict[str, set[str]] = {}
        for row in read_layout(tmp_path, seed=seed)[0].rows:
            if not row.label:
                splits.setdefault(str(row.group), set()).add(row.split)
        assert len(splits) == 8
        assert all(len(split) == 1 for split in splits.values())
    assert group_of(Path("Patient_012-3.png")) == "patient_012"
    assert group_of(Path("cju0qkwl35piu.jpg")) is None
    assert [row.split for row in draw_split([Path("video1_0.png"), Path("video1_1.png")], 0.5, 0)] == ["test"] * 2


def test_what_is_not_known_is_told_with_what_there_is(tmp_path: Path) -> None:
    picture(tmp_path / "scans" / "a.png", 0)
    with pytest.raises(UserError) as told:
        read_layout(tmp_path)
    assert f"{tmp_path}: no known layout; there is scans/." in str(told.value)
    for layout in LAYOUTS:
        assert f"{layout.name:12} {layout.shape}" in str(told.value)
    with pytest.raises(UserError, match=r"data\.layout is 'kvasir', but must be auto, .* hyper_kvasir"):
        read_layout(tmp_path, "kvasir")
    with pytest.raises(UserError, match="train_set: no images in this folder"):
        read_layout(tmp_path, "authors")


def test_damaged_packings(tmp_path: Path) -> None:
    medianomaly(tmp_path)
    (tmp_path / "images/n3.png").unlink()
    with pytest.raises(UserError, match=r"images/n3\.png: no such file, but .*data\.json names it"):
        read_layout(tmp_path)
    for content in ("nothing", "{}", "[]", json.dumps({"train": [], "test": {}})):
        (tmp_path / "data.json").write_text(content)
        with pytest.raises(UserError, match=r"data\.json: not \{\"train\""):
            read_layout(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_a_written_split_can_be_given_again(tmp_path: Path) -> None:
    root = tmp_path / "lag"
    lag(root)
    data = LAG(str(root), size=32, split_seed=3)
    data.setup("fit")
    assert data.split
    table = tmp_path / "published.csv"
    data.split.write(table)
    again, name = read_layout(root, str(table), seed=0)
    assert name == f"manifest {table}"
    assert again.rows == data.split.rows
    shutil.move(table, root / "split.csv")
    assert read_layout(root / "split.csv")[0].rows == data.split.rows


def test_sizes_that_are_not_the_paper_s_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    authors(tmp_path)
    with pytest.warns(UserWarning, match="16, 5 and 6 images .* where the paper has 1600, 500 and 1000"):
        HyperKvasir(str(tmp_path), size=32).setup("fit")
    assert f"data: {tmp_path} (authors): 16 training images, 5 normal test images, 6 abnormal ones, 0 masks" in (
        capsys.readouterr().out
    )
    assert describe(Folder(str(tmp_path), size=32).manifest()).startswith("16 training images")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("layout", "config"),
    [
        ("hyper_kvasir", "padim_kvasir"),
        ("authors", "padim_liu"),
        ("lag", "padim_lag"),
        ("medianomaly", "padim_lag"),
        ("two_folders", "padim_folder"),
    ],
)
def test_from_files_to_a_test(layout: str, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, expected = FAKES[layout]
    make(tmp_path / "set")
    small = ["--data.root=set", "--data.size=32", "--data.batch_size=8", "--data.num_workers=0"]
    assert main(["fit", "--config", str(CONFIGS / f"{config}.yaml"), *small, "--model.encoder.weights=null"]) == 0
    assert main(["test"]) == 0
    run = Path("runs") / config / "latest"
    found = json.loads((run / "metrics.json").read_text())
    assert found["data"]["images"] == expected[1] + expected[2]
    assert ("pixel/auroc" in found["metrics"]) == bool(expected[3])
    written = Manifest.read(run / "manifest.csv", tmp_path / "set")
    assert sizes(written) == expected
    before = (run / "metrics.json").read_text()
    again = ["--data.root=set", f"--data.layout={run / 'manifest.csv'}"]
    assert main(["test", *again]) == 0
    assert json.loads(before)["data"] == json.loads((run / "metrics.json").read_text())["data"]


def test_the_embedded_sets_need_no_recognition(folder: Path) -> None:
    data = AnomalyDataModule(str(folder), size=64)
    data.setup("test")
    assert data.split
    assert sizes(data.split) == (12, 5, 6, 6)
