import math
import re
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from tensorboard.plugins.custom_scalar import layout_pb2  # type: ignore[import-untyped]

from ccd_lightning.callbacks.collapse import COLLAPSED, CollapseMonitor, FamilyAdvice
from ccd_lightning.callbacks.dashboard import LearningRate, PretextCharts, tensorboard
from ccd_lightning.callbacks.pictures import PretextPictures, held_out_features, pair_board, pairs_figure, views_figure
from ccd_lightning.callbacks.throughput import Throughput
from ccd_lightning.data.datasets import Folder
from ccd_lightning.data.synthetic import synthesize
from ccd_lightning.losses.contrastive import nt_xent
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.heads import spread
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.modules.schedule import cosine_with_warmup
from ccd_lightning.transforms.patches import CELLS
from ccd_lightning.transforms.pretext import PretextViews
from ccd_lightning.transforms.strong import Cutout, Permutation


def small_views() -> PretextViews:
    return PretextViews(size=32, patch_size=16, pairs=2)


class OwnViews:
    """A user's views, which have no family."""

    def __init__(self) -> None:
        self._inner = small_views()

    def __call__(self, image: torch.Tensor, seed: tuple[int, int, int]) -> dict[str, torch.Tensor]:
        return self._inner(image, seed)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dashboard") / "images"
    synthesize(root, "colonoscopy", size=32, train=12, test_good=1, test_abnormal=1)
    return root


def fit(images: Path, logger: Any, views: Any = None, **options: Any) -> Trainer:
    """Trains on 8 images in steps of 4, with 4 images held out."""
    torch.manual_seed(0)
    data = Folder(str(images), size=32, batch_size=4, validation=1 / 3, views=views or small_views())
    shown: list[Callback] = [PretextCharts(), PretextPictures(images=2), LearningRate("step"), Throughput(warmup=1)]
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu",
        logger=logger,
        callbacks=shown,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        **quiet,
        **options,
    )
    trainer.fit(CCD(warmup_steps=2), datamodule=data)
    return trainer


@pytest.fixture(scope="module")
def fitted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A run with a TensorBoard logger behind another one."""
    folder = str(tmp_path_factory.mktemp("logs"))
    return fit(images, [CSVLogger(folder, "csv"), TensorBoardLogger(folder, "run")], max_epochs=2)


def run_folder(trainer: Trainer) -> Path:
    return Path(trainer.loggers[1].log_dir or "")


@pytest.fixture(scope="module")
def events(fitted: Trainer) -> EventAccumulator:
    return read_events(run_folder(fitted))


def read_events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def curve(events: EventAccumulator, name: str) -> dict[int, float]:
    return {event.step: event.value for event in events.Scalars(name)}


class Fake:
    """A trainer that has just logged a spread."""

    def __init__(self, value: float, name: str = "train/spread") -> None:
        self.global_step, self.log_every_n_steps = 1, 1
        self.callback_metrics = {"train/spread": torch.tensor(1.0), "train/loss": torch.tensor(0.0)}
        self.callback_metrics[name] = torch.tensor(value)


def watch(values: list[float], patience: int = 3, name: str = "train/spread") -> list[str]:
    monitor = CollapseMonitor(patience)
    module: Any = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step, value in enumerate(values, start=1):
            trainer: Any = Fake(value, name)
            trainer.global_step = step
            monitor.on_train_batch_end(trainer, module, None, None, 0)
    return [str(warning.message) for warning in caught if "COLLAPSED" in str(warning.message)]


def test_collapse_is_told_once_and_says_what_to_change() -> None:
    told = watch([0.003] * 10)
    assert len(told) == 1
    for way_out in ("--model.optimizer.lr", "--model.warmup_steps", "--model.encoder.weights imagenet"):
        assert way_out in told[0]


def test_a_healthy_or_shortly_low_spread_is_not_a_collapse() -> None:
    assert watch([1.0] * 10) == []
    assert watch([0.01, 0.01, 0.7, 0.01, 0.01, 0.6]) == []


def test_features_are_watched_beside_projections() -> None:
    assert watch([0.2] * 10, name="train/feature_spread") == []
    assert len(watch([0.01] * 10, name="train/feature_spread")) == 1


def test_a_loss_that_is_no_number_is_told_too() -> None:
    assert len(watch([float("nan")] * 3)) == 1


def test_the_line_separates_collapsed_from_healthy_projections() -> None:
    generator = torch.Generator().manual_seed(0)
    point = torch.ones(64, 128) + 0.001 * torch.randn(64, 128, generator=generator)
    assert (
        spread(point)
        < min(COLLAPSED.values())
        < max(COLLAPSED.values())
        < spread(torch.randn(64, 128, generator=generator))
    )


def charts(events: EventAccumulator) -> dict[str, list[str]]:
    layout = layout_pb2.Layout()
    (event,) = events.Tensors("custom_scalars__config__")
    layout.ParseFromString(event.tensor_proto.string_val[0])
    (category,) = layout.category
    return {chart.title: list(chart.multiline.tag) for chart in category.chart}


def test_every_chart_finds_its_scalars_and_no_others(events: EventAccumulator) -> None:
    scalars = events.Tags()["scalars"]
    for title, tags in charts(events).items():
        for tag in tags:
            assert len([name for name in scalars if re.match(tag, name)]) == 1, (title, tag)  # as TensorBoard matches


def test_charts_show_curves_beside_their_lines(events: EventAccumulator) -> None:
    tags = charts(events)["augmentation accuracy, and chance"]
    assert tags == [f"{group}/augmentation_accuracy$" for group in ("train", "val", "warning_line")]


def test_lines_reach_from_the_first_to_the_last_step(fitted: Trainer, events: EventAccumulator) -> None:
    point = torch.ones(4 * 4, 8)  # 4 images under 4 strong augmentations, all of them one point
    expected = {
        "augmentation_accuracy": 1 / 4,
        "position_accuracy": 1 / 8,
        "probe_auroc": 1 / 2,
        "spread": COLLAPSED["train/spread"],
        "feature_spread": COLLAPSED["train/feature_spread"],
        "train_contrastive": float(nt_xent(point, point, 0.2)),
    }
    assert fitted.global_step == 4
    for name, value in expected.items():
        line = curve(events, f"warning_line/{name}")
        assert list(line) == [0, 2, 4], name
        assert list(line.values()) == pytest.approx([value] * 3), name
    line = curve(events, "warning_line/val_contrastive")
    assert line == pytest.approx(dict.fromkeys((2, 4), math.log(2 * 4 * 4 - 1)))


def test_learning_rate_is_that_of_the_schedule(events: EventAccumulator) -> None:
    expected = {step: 1e-3 * cosine_with_warmup(step, total=4, warmup=2) for step in range(4)}
    assert curve(events, "train/learning_rate") == pytest.approx(expected)


def test_images_per_second_begin_after_the_warm_up(events: EventAccumulator) -> None:
    speed = curve(events, "train/images_per_second")
    assert list(speed) == [2, 3, 4]
    assert all(0 < value < 10_000 for value in speed.values())


class Recorder:
    """A logger that remembers."""

    def __init__(self) -> None:
        self.logged: dict[int, float] = {}

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        (self.logged[step],) = metrics.values()


def run_clock(
    monkeypatch: pytest.MonkeyPatch, seconds: list[float], ranks: int = 1, accumulate: int = 1, every: int = 1
) -> dict[int, float]:
    """Throughput of batches of 6 images that take so long, 2 batches an epoch, 100 seconds of validation after each."""
    clock, recorder = [0.0], Recorder()
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    trainer: Any = SimpleNamespace(global_step=0, world_size=ranks, log_every_n_steps=every, loggers=[recorder])
    module: Any = None
    monitor, batch = Throughput(warmup=1, window=2), {"image": torch.zeros(6, 1)}
    monitor.on_train_start(trainer, module)
    for number, duration in enumerate(seconds):
        if number % 2 == 0:
            monitor.on_train_epoch_start(trainer, module)
        clock[0] += duration
        trainer.global_step = (number + 1) // accumulate
        monitor.on_train_batch_end(trainer, module, None, batch, number % 2)
        if number % 2 == 1:
            clock[0] += 100
    return recorder.logged


def test_throughput_leaves_out_warm_up_and_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_clock(monkeypatch, [50, 2, 2, 1]) == pytest.approx({2: 6 / 2, 3: 12 / 4, 4: 12 / 3})
    assert run_clock(monkeypatch, [50, 2, 2, 1], ranks=3) == pytest.approx({2: 18 / 2, 3: 36 / 4, 4: 36 / 3})
    assert run_clock(monkeypatch, [50, 2, 2, 1], every=4) == pytest.approx({4: 12 / 3})


def test_throughput_counts_all_batches_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_clock(monkeypatch, [50, 50, 2, 1], accumulate=2) == pytest.approx({2: 12 / 3})


def test_validation_within_an_epoch_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 9.0, 12.0, 112.0, 115.0])  # training and epoch begin, batch and validation end, batch ends
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    recorder = Recorder()
    module: Any = None
    trainer: Any = SimpleNamespace(global_step=0, world_size=1, log_every_n_steps=1, loggers=[recorder])
    monitor, batch = Throughput(warmup=0), {"image": torch.zeros(6, 1)}
    monitor.on_train_start(trainer, module)
    monitor.on_train_epoch_start(trainer, module)
    for step in (1, 2):
        trainer.global_step = step
        monitor.on_train_batch_end(trainer, module, None, batch, step)
        if step == 1:
            monitor.on_validation_end(trainer, module)
    assert recorder.logged == pytest.approx({1: 2.0, 2: 2.0})


def test_pictures_are_drawn_once(events: EventAccumulator) -> None:
    for name in ("first_batch/views", "first_batch/position_pairs"):
        (image,) = events.Images(name)
        assert image.step == 0
        assert image.width > 300


def test_projector_shows_the_features_of_each_distribution(images: Path, fitted: Trainer) -> None:
    folder = run_folder(fitted)
    config = (folder / "projector_config.pbtxt").read_text()
    (projected,) = folder.glob("*/features")
    assert f"{fitted.global_step:05}/features/tensors.tsv" in config
    header, *rows = [line.split("\t") for line in (projected / "metadata.tsv").read_text().splitlines()]
    assert header == ["distribution", "image"]
    assert [name for name, _ in rows] == [f"Permutation {index}" for index in range(4)] * 4
    assert len({path for _, path in rows}) == 4
    with Image.open(projected / "sprite.png") as sprite:
        assert sprite.size == (4 * 32, 4 * 32)
    features = torch.from_numpy(np.loadtxt(projected / "tensors.tsv", dtype=np.float32))
    assert features.shape == (16, Encoder.features_size)
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(images / path))) for _, path in rows])
    strong = Permutation()(pixels.permute(0, 3, 1, 2).float() / 255, torch.arange(4).repeat(4))
    with torch.no_grad():
        expected = fitted.lightning_module.eval()(strong)
    assert torch.allclose(features, expected, atol=1e-3)


def test_projector_stops_at_its_number_and_leaves_the_mode(fitted: Trainer) -> None:
    data, module = fitted.datamodule, fitted.lightning_module.train()  # type: ignore[attr-defined]
    data.batch_size = 2
    found = held_out_features(module, data, 2, "Permutation", thumbnail=8)  # type: ignore[arg-type]
    assert found is not None
    assert found[1].shape == (8, 3, 8, 8)
    assert len(found[2]) == 8
    assert module.encoder.training  # type: ignore[union-attr]


@pytest.mark.fit
def test_views_without_a_family_are_shown_but_not_projected(images: Path, tmp_path: Path) -> None:
    trainer = fit(images, TensorBoardLogger(tmp_path, "own"), OwnViews(), max_steps=1)
    folder = Path(trainer.log_dir or "")
    assert not (folder / "projector_config.pbtxt").exists()
    assert read_events(folder).Tags()["images"] == ["first_batch/views", "first_batch/position_pairs"]


@pytest.mark.fit
@pytest.mark.parametrize("options", [{"logger": False}, {"logger": True, "fast_dev_run": True}, {"logger": "csv"}])
def test_other_loggers_and_none_are_no_error(
    options: dict[str, Any], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if options["logger"] == "csv":
        options = options | {"logger": CSVLogger("logs")}
    trainer = fit(images, **options, max_steps=1)
    assert tensorboard(trainer) is None
    assert not list(tmp_path.glob("**/*tfevents*"))
    assert not list(tmp_path.glob("**/projector_config.pbtxt"))


def test_other_modules_get_no_charts_of_pretraining(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    trainer: Any = SimpleNamespace(loggers=[logger], logger=logger, is_global_zero=True, global_step=0)
    shown, module = PretextCharts(), LightningModule()
    shown.on_train_start(trainer, module)
    shown.on_train_batch_start(trainer, module, {}, 0)
    shown.on_train_epoch_end(trainer, module)
    PretextPictures().on_train_batch_start(trainer, module, {}, 0)
    PretextPictures().on_fit_end(trainer, module)
    logger.finalize("success")
    assert read_events(Path(logger.log_dir)).Tags()["tensors"] == []


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    trainer: Any = SimpleNamespace(loggers=[TensorBoardLogger(tmp_path)], is_global_zero=False)
    assert tensorboard(trainer) is None


def test_views_have_a_row_an_image_and_a_column_a_distribution() -> None:
    views, augmentation = torch.rand(3, 2, 4, 3, 32, 32), torch.arange(4).expand(3, 4)
    figure = views_figure(views, augmentation, "Rotation")
    assert figure.get_suptitle().endswith("under Rotation")
    assert [axes.get_title() for axes in figure.axes] == ["0", "1", "2", "3"] + [""] * 8
    assert [axes.get_ylabel() for axes in figure.axes[::4]] == ["0", "1", "2"]
    for place, axes in enumerate(figure.axes):
        shown = torch.as_tensor(np.array(axes.images[0].get_array())).permute(2, 0, 1)
        image, distribution = divmod(place, 4)
        assert torch.equal(shown[..., :32], views[image, 0, distribution])
        assert torch.equal(shown[..., -32:], views[image, 1, distribution])
        assert bool((shown[..., 32:-32] == 1).all())


def test_views_of_one_distribution_each_are_titled_each() -> None:
    figure = views_figure(torch.rand(3, 2, 1, 3, 8, 8), torch.tensor([[2], [0], [3]]), "Cutout")
    assert [axes.get_title() for axes in figure.axes] == ["2", "0", "3"]


@pytest.mark.parametrize("cell", range(8))
def test_a_pair_is_shown_with_the_second_patch_where_it_lies(cell: int) -> None:
    board = pair_board(torch.stack([torch.full((3, 4, 4), 0.2), torch.full((3, 4, 4), 0.8)]), cell)
    row, column = CELLS[cell]
    assert torch.allclose(board[4:8, 4:8], torch.tensor(0.2))
    assert torch.allclose(board[4 + 4 * row : 8 + 4 * row, 4 + 4 * column : 8 + 4 * column], torch.tensor(0.8))


def test_each_class_of_position_is_shown_where_the_batch_has_it() -> None:
    patches, position = torch.rand(3, 2, 2, 3, 4, 4), torch.tensor([[6, 0], [0, 6], [3, 3]])
    figure = pairs_figure(patches, position)
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert titles == ["0: above left", "3: left", "6: below"]
    left = torch.as_tensor(np.array(figure.axes[3].images[0].get_array()))
    assert torch.equal(left[4:8, :4].permute(2, 0, 1), patches[2, 1, 0])


@pytest.mark.parametrize(
    ("accuracy", "module", "told"),
    [
        (0.26, CCD(), True),
        (0.56, CCD(), False),
        (0.26, CCD(augmentation_weight=0), False),
        (None, CCD(), False),
        (0.3, CCD(distributions=5), False),
    ],
)
def test_a_family_that_cannot_be_told_is_said_so(accuracy: float | None, module: CCD, told: bool) -> None:
    found = {} if accuracy is None else {"val/augmentation_accuracy": torch.tensor(accuracy)}
    trainer: Any = SimpleNamespace(callback_metrics=found)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        FamilyAdvice().on_fit_end(trainer, module)
    assert [str(warning.message).split("(")[0] for warning in caught] == [
        "On held-out images the strong augmentations cannot be told from each other "
    ] * told
    for warning in caught:  # whichever is in use, others are named
        assert all(family in str(warning.message) for family in ("Permutation", "Rotation", "Cutout", "Noise"))


@pytest.mark.parametrize(("family", "told"), [(Cutout(), True), (Permutation(), False), (None, False)])
def test_a_hole_that_the_family_leaves_out_is_told(family: Any, told: bool) -> None:
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(views=PretextViews(family, hole=9)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        FamilyAdvice().on_fit_start(trainer, CCD())
    assert [str(warning.message)[:40] for warning in caught] == ["data.views.hole 9 is ignored: with Cutou"] * told
