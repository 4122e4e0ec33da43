import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from ccd_lightning.data import dataset, images
from ccd_lightning.data import file_info as inspection
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.dataset import DistributedBatchSampler, EpochIndex, EpochSampler
from ccd_lightning.data.datasets import SyntheticColonoscopy
from ccd_lightning.data.images import read_image
from ccd_lightning.data.loading import ImageBatch
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


@pytest.mark.parametrize("check_leaks", [True, False])
def test_test_images_are_decoded_to_look_for_leaks_alone(
    check_leaks: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: set[Path] = set()

    def watched(decode: Callable[..., Any]) -> Callable[..., Any]:
        def decode_and_note(path: Path, *rest: Any) -> Any:
            decoded.add(path)
            return decode(path, *rest)

        return decode_and_note

    for reader, name in ((images, "read_placed"), (inspection, "inspect"), (dataset, "read_mask")):
        monkeypatch.setattr(reader, name, watched(getattr(reader, name)))
    module(folder, check_leaks=check_leaks).setup("fit")
    parts = ("train", "test") if check_leaks else ("train",)
    assert decoded == {path for part in parts for path in folder.glob(f"{part}/*/*.png")}


def test_with_a_cache_only_changed_test_images_are_decoded_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decoded: list[Path] = []
    look = inspection.inspect

    def noted(path: Path) -> inspection.ImageInfo:
        decoded.append(path)
        return look(path)

    monkeypatch.setattr(inspection, "inspect", noted)
    cache = tmp_path / "cache"
    module(folder, cache_dir=str(cache)).setup("fit")
    assert len(decoded) == 12 + 11
    assert "data: comparing 12 training images with 11 test images" in capsys.readouterr().out
    decoded.clear()
    module(folder, cache_dir=str(cache)).setup("fit")
    assert decoded == []
    changed = folder / "test/good/0001.png"
    shutil.copy(folder / "train/good/0002.png", changed)
    with pytest.raises(UserError, match=r"train/good/0002\.png and test image .*test/good/0001\.png"):
        module(folder, cache_dir=str(cache)).setup("fit")
    assert decoded == [changed]
    decoded.clear()
    next(cache.glob("thumbnails*")).write_bytes(b"damaged")
    with pytest.raises(UserError, match="are the same file"):
        module(folder, cache_dir=str(cache)).setup("fit")
    assert len(decoded) == 12 + 11


def compare_splits(rank: int, root: Path, out: Path) -> None:
    """What a rank of two does; writes how many images it looked at, and the message of its error."""
    looked: list[Path] = []
    look = inspection.inspect
    inspection.inspect = lambda path: looked.append(path) or look(path)  # type: ignore[func-returns-value]
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}/meet", rank=rank, world_size=2)
    try:
        module(root).setup("fit")
    except UserError as error:
        (out / f"{rank}.txt").write_text(f"{len(looked)} {error}")
    torch.distributed.destroy_process_group()


@pytest.mark.process
def test_one_rank_looks_for_leaks_and_all_hear_of_one(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "train/good/0002.png", folder / "test/good/0001.png")
    torch.multiprocessing.spawn(compare_splits, (folder, tmp_path), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
    messages = [(tmp_path / f"{rank}.txt").read_text().split(" ", 1) for rank in (0, 1)]
    assert [count for count, _ in messages] == ["23", "0"]
    assert messages[0][1] == messages[1][1]
    assert ".png are the same file" in messages[0][1]


def test_images_that_cannot_be_compared_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "test/good/0001.png").write_bytes(b"damaged")
    module(folder).setup("fit")
    assert "data: not compared: 1 image that cannot be read, such as" in capsys.readouterr().out


def test_a_damaged_test_image_does_not_stop_a_fit(folder: Path) -> None:
    damaged = next((folder / "test/good").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:200])
    data = module(folder)
    data.setup("fit")
    assert len(data.datasets["train"]) == 10
    with pytest.raises(UserError, match=f"{damaged.name}: cannot be decoded"):
        data.setup("test")


def test_truncated_image_is_named(folder: Path) -> None:
    path = folder / "train/good/0003.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"train/good/0003\.png: cannot be decoded"):
        module(folder).setup("fit")


def test_items_have_images_views_masks_and_labels(folder: Path) -> None:
    data = module(folder, views=PretextViews(size=16, patch_size=8))
    data.setup("test")
    seen = 0
    for batch in data.test_dataloader():
        assert batch["image"].dtype == torch.uint8
        assert batch["image"].shape[1:] == (3, 32, 32)
        assert batch["views"].shape[1:] == (2, 4, 3, 16, 16)
        assert torch.equal(batch["mask"].flatten(1).any(dim=1), batch["label"].bool())
        assert [int(kind != "good") for kind in batch["anomaly_type"]] == batch["label"].tolist()
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


def test_a_test_needs_no_training_images(folder: Path) -> None:
    shutil.rmtree(folder / "train")
    data = module(folder)
    data.setup("test")
    assert len(data.datasets["test"]) == 11
    with pytest.raises(UserError, match=r"images: no images to learn from"):
        data.setup("fit")


def test_predict_reads_no_mask(folder: Path) -> None:
    for path in (folder / "ground_truth").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:60])  # the header is whole
    data = module(folder)
    data.setup("test")
    with pytest.raises(UserError, match=r"ground_truth/polyp_\w+/0000\.png: cannot be decoded"):
        list(data.test_dataloader())
    shutil.rmtree(folder / "ground_truth/polyp_subtle")
    data.setup("predict")
    assert sum(len(batch["path"]) for batch in data.predict_dataloader()) == 11


def pixels(batches: Iterable[ImageBatch]) -> torch.Tensor:
    return torch.cat([batch.pixels for batch in batches])


def test_normal_images_are_all_of_them_in_order(folder: Path) -> None:
    data = module(folder)
    train, held_out = (pixels(batches) for batches in data.normal_images(torch.device("cpu")))
    assert len(train) + len(held_out) == 12
    assert torch.equal(train[3], data.datasets["train"][EpochIndex(0, 3)]["image"] / 255)


def test_some_of_the_normal_images_are_evenly_spaced_whatever_the_batches_and_ranks(folder: Path) -> None:
    device = torch.device("cpu")
    alone = pixels(module(folder, batch_size=4).normal_images(device, at_most=4)[0])
    data = module(folder, batch_size=1)
    every = pixels(data.normal_images(device)[0])
    assert torch.equal(alone, every[::3])  # of 10
    shares = [list(data.normal_images(device, rank, 2, at_most=4)[0]) for rank in range(2)]
    assert torch.equal(pixels([shares[0][0], shares[1][0], shares[0][1], shares[1][1]]), alone)


def test_shares_of_the_normal_images_are_together_all_of_them(folder: Path) -> None:
    data, device = module(folder, batch_size=2), torch.device("cpu")
    for side in (0, 1):
        whole = list(data.normal_images(device)[side])
        shares = [list(data.normal_images(device, rank, 3)[side]) for rank in range(3)]
        assert sum(len(share) for share in shares) == len(whole)
        for number, batch in enumerate(whole):
            assert torch.equal(shares[number % 3][number // 3].pixels, batch.pixels)
            assert torch.equal(shares[number % 3][number // 3].content, batch.content)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"size": 0}, "data.size is 0"),
        ({"validation": 0}, "data.validation is 0"),
        ({"crop": (0.8, 0.1, 0.2, 0.9)}, r"data\.crop is \[0\.8, 0\.1, 0\.2, 0\.9\], but must be left < right"),
    ],
)
def test_settings_out_of_range_are_refused(folder: Path, change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        module(folder, **change)


@pytest.mark.parametrize("change", [{"size": 33}, {"views": PretextViews(size=16, patch_size=30)}])
def test_views_that_do_not_go_with_the_images(folder: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"data\.views does not fit images of 3[23] px: .*(even|fit)"):
        module(folder, **{"views": PretextViews(size=16, patch_size=8), **change}).setup("fit")


def test_too_few_held_out_images_are_refused(folder: Path) -> None:
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


def dealt(length: int, batch_size: int, ranks: int, shuffle: bool = True) -> list[list[list[EpochIndex]]]:
    return [
        list(DistributedBatchSampler(EpochSampler(length, 0, shuffle), batch_size, rank, ranks))
        for rank in range(ranks)
    ]


@pytest.mark.parametrize(("length", "batch_size", "ranks"), [(257, 32, 2), (9, 4, 2), (50, 16, 1), (7, 7, 3)])
def test_ranks_make_as_many_steps_and_leave_nothing_out(length: int, batch_size: int, ranks: int) -> None:
    batches = dealt(length, batch_size, ranks)
    assert len({len(share) for share in batches}) == 1
    assert len(batches[0]) == len(DistributedBatchSampler(EpochSampler(length, 0, True), batch_size, 0, ranks))
    sizes = [len(batch) for share in batches for batch in share]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert sorted(key.item for share in batches for batch in share for key in batch) == list(range(length))


@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_see_together_what_one_process_sees(shuffle: bool) -> None:
    (alone,) = dealt(53, 12, 1, shuffle)
    for ranks in (2, 3, 4):
        steps = zip(*dealt(53, 12 // ranks, ranks, shuffle), strict=True)
        together = [sorted(key for share in step for key in share) for step in steps]
        assert together == [sorted(batch) for batch in alone]


def test_an_epoch_goes_on_where_it_was_left() -> None:
    batches = DistributedBatchSampler(EpochSampler(20, 0, True), 4)
    batches.sampler.set_epoch(3)
    whole = list(batches)
    resumed = DistributedBatchSampler(EpochSampler(20, 0, True), 4)
    resumed.start_at(3, 2)
    assert len(resumed) == 5
    assert list(resumed) == whole[2:]
    assert list(resumed) == whole  # once


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


@pytest.mark.fit
@pytest.mark.filterwarnings("ignore::UserWarning:lightning")  # of a module that does nothing
def test_the_order_follows_the_epoch_of_lightning(folder: Path) -> None:
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


def test_synthetic_makes_its_folder_once(tmp_path: Path) -> None:
    data = SyntheticColonoscopy(str(tmp_path / "set"), train=6, test_good=1, test_abnormal=3, size=32)
    data.prepare_data()
    data.setup("fit")
    stamp = (tmp_path / "set/synthesis.json").stat().st_mtime_ns
    data.prepare_data()
    assert (tmp_path / "set/synthesis.json").stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="made with train 6, but train 7 is asked for"):
        SyntheticColonoscopy(str(tmp_path / "set"), train=7, test_good=1, test_abnormal=3, size=32).prepare_data()


def test_runs_of_other_seeds_share_the_cache(folder: Path, tmp_path: Path) -> None:
    held_out = []
    for seed in (0, 1):
        data = module(folder, seed=seed, cache_dir=str(tmp_path / "cache"))
        data.setup("fit")
        assert len(list((tmp_path / "cache").glob("*.placements.npy"))) == 1
        for read in (data.datasets["train"], data.datasets["val"]):
            for index, row in enumerate(read.rows):
                image = torch.from_numpy(read_image(row.path, data.preprocessing).copy()).permute(2, 0, 1)
                assert torch.equal(read[EpochIndex(0, index)]["image"], image)
                assert torch.equal(torch.from_numpy(read.pixels(index, index + 1)[0]), image)
        held_out.append({row.path for row in data.datasets["val"].rows})
    assert held_out[0] != held_out[1]
