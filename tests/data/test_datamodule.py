from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from ccd_lightning.data.datamodule import AnomalyDataModule, SyntheticColonoscopy
from ccd_lightning.data.dataset import EpochSampler, EvenBatches
from ccd_lightning.data.images import Geometry, load_images, read_image, read_mask
from ccd_lightning.data.layouts import list_images
from ccd_lightning.errors import UserError
from ccd_lightning.transforms.pretext import PretextViews


def module(folder: Path, **changes: object) -> AnomalyDataModule:
    return AnomalyDataModule(str(folder), **{"size": 32, "batch_size": 4, **changes})  # type: ignore[arg-type]


def test_hold_out_is_normal_seeded_and_disjoint(folder: Path) -> None:
    splits = []
    for seed in (0, 0, 1):
        data = module(folder, seed=seed, validation=0.25)
        data.setup("fit")
        train, held_out = ({row.path for row in data.datasets[name].rows} for name in ("train", "val"))
        assert len(train) == 9
        assert len(held_out) == 3
        assert not train & held_out
        assert all("train/good" in str(path) for path in train | held_out)
        splits.append(held_out)
    assert splits[0] == splits[1] != splits[2]


def test_fit_does_not_decode_test_images(folder: Path) -> None:
    for path in (folder / "test").glob("*/*.png"):
        path.write_bytes(path.read_bytes()[:200])
    module(folder).setup("fit")


def test_truncated_image_is_named(folder: Path) -> None:
    path = folder / "train/good/0003.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"train/good/0003\.png: cannot be decoded"):
        module(folder).setup("fit")


def test_items(folder: Path) -> None:
    data = module(folder, views=PretextViews(size=16, patch_size=8))
    data.setup("test")
    seen = 0
    for batch in data.test_dataloader():
        assert batch["image"].dtype == torch.uint8
        assert batch["image"].shape[1:] == (3, 32, 32)
        assert batch["views"].shape[1:] == (2, 4, 3, 16, 16)
        assert torch.equal(batch["mask"].flatten(1).any(dim=1), batch["label"].bool())
        assert [int(kind != "good") for kind in batch["kind"]] == batch["label"].tolist()
        assert batch["has_mask"].all()
        moved = data.on_after_batch_transfer(batch, 0)
        assert 0.1 < moved["image"].max() <= 1
        assert moved["label"].dtype == torch.int64
        seen += len(batch["path"])
    assert seen == 11


def test_workers_do_not_matter(folder: Path) -> None:
    views = []
    for workers in (0, 2):
        data = module(folder, num_workers=workers, views=PretextViews(size=16, patch_size=8))
        data.setup("fit")
        loader = data.train_dataloader()
        loader.batch_sampler.sampler.set_epoch(3)  # type: ignore[union-attr]
        views.append(torch.cat([batch["views"] for batch in loader]))
    assert torch.equal(*views)


def test_too_small_a_hold_out(folder: Path) -> None:
    with pytest.raises(UserError, match=r"12 training images with data\.validation 0\.01 leave 12"):
        module(folder, validation=0.01).setup("fit")


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int, shuffle: bool = True) -> list[int]:
        sampler = EpochSampler(20, seed, shuffle)
        sampler.set_epoch(epoch)
        return [key.item for key in sampler]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    assert sorted(order(0, 1)) == order(0, 1, shuffle=False) == list(range(20))


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_one_order(ranks: int) -> None:
    for shuffle in (True, False):
        samplers = [EpochSampler(20, 0, shuffle, rank, ranks) for rank in range(ranks)]
        shares = [[key.item for key in sampler] for sampler in samplers]
        assert [len(share) for share in shares] == [len(sampler) for sampler in samplers]
        assert sorted(index for share in shares for index in share) == list(range(20))


@pytest.mark.parametrize(("length", "batch_size", "ranks"), [(257, 32, 2), (9, 4, 2), (50, 16, 1), (7, 7, 3)])
def test_ranks_make_as_many_steps_and_leave_nothing_out(length: int, batch_size: int, ranks: int) -> None:
    shares = [EvenBatches(EpochSampler(length, 0, True, rank, ranks), batch_size) for rank in range(ranks)]
    batches = [list(share) for share in shares]
    assert len({len(share) for share in batches}) == 1
    assert [len(share) for share in batches] == [len(share) for share in shares]
    sizes = [len(batch) for share in batches for batch in share]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert sorted(key.item for share in batches for batch in share for key in batch) == list(range(length))


class Watcher(LightningModule):
    """Writes down which images come in which epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[str]] = []

    def on_train_epoch_start(self) -> None:
        self.seen.append([])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.seen[-1] += batch["path"]

    def configure_optimizers(self) -> None:
        return


def test_lightning_tells_the_epoch(folder: Path) -> None:
    def fit(epochs: int) -> list[list[str]]:
        watcher = Watcher()
        quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
        trainer = Trainer(max_epochs=epochs, accelerator="cpu", limit_val_batches=0, **quiet)
        trainer.fit(watcher, datamodule=module(folder))
        return watcher.seen

    first, second = fit(2)
    assert sorted(first) == sorted(second)
    assert first != second
    assert fit(1) == [first]


def test_crop_is_a_fraction_and_mask_follows(tmp_path: Path) -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[25:75, 50:150] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    geometry = Geometry(10, (0.25, 0.25, 0.75, 0.75))
    assert (read_image(tmp_path / "a.png", geometry) == 255).all()
    assert read_mask(tmp_path / "a.png", geometry).all()
    assert read_mask(tmp_path / "a.png", Geometry(20)).mean() == 0.25


def test_cache_on_disk_is_the_same_and_follows_changes(folder: Path, tmp_path: Path) -> None:
    paths, cache = list_images(folder / "train/good"), tmp_path / "cache"
    plain = load_images(paths, Geometry(16))
    for _ in range(2):
        assert np.array_equal(load_images(paths, Geometry(16), cache), plain)
    assert len(list(cache.iterdir())) == 1
    Image.new("RGB", (64, 64), (255, 0, 0)).save(paths[0])
    changed = load_images(paths, Geometry(16), cache)
    assert (changed[0] == (255, 0, 0)).all()
    assert np.array_equal(changed[1:], plain[1:])


def test_cache_of_a_broken_file_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    paths, cache = list_images(folder / "train/good"), tmp_path / "cache"
    paths[4].write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"0004\.png"):
        load_images(paths, Geometry(16), cache)
    assert list(cache.iterdir()) == []


def test_synthetic_makes_its_folder_once(tmp_path: Path) -> None:
    data = SyntheticColonoscopy(str(tmp_path / "set"), train=6, test_good=1, test_abnormal=3, size=32)
    data.prepare_data()
    data.setup("fit")
    stamp = (tmp_path / "set/synthesis.json").stat().st_mtime_ns
    data.prepare_data()
    assert (tmp_path / "set/synthesis.json").stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="made with train 6, but train 7 is asked for"):
        SyntheticColonoscopy(str(tmp_path / "set"), train=7, test_good=1, test_abnormal=3, size=32).prepare_data()
