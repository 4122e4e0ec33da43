import math
import re
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

from ccd_lightning.callbacks.charts import PretextCharts
from ccd_lightning.callbacks.collapse import COLLAPSED
from ccd_lightning.callbacks.dashboard import LearningRate, tensorboard
from ccd_lightning.callbacks.pictures import PretextPictures, held_out_features, pair_board, pairs_figure, views_figure
from ccd_lightning.callbacks.throughput import Throughput
from ccd_lightning.data.datasets import Folder
from ccd_lightning.data.synthetic import synthesize
from ccd_lightning.losses.contrastive import nt_xent
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.modules.schedule import cosine_with_warmup
from ccd_lightning.transforms.patches import CELLS
from ccd_lightning.transforms.pretext import PretextViews
from ccd_lightning.transforms.strong import Identity, Permutation


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


def fit(images: Path, logger: Any, views: Any = None, module: CCD | None = None, **options: Any) -> Trainer:
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
    trainer.fit(module or CCD(warmup_steps=2), datamodule=data)
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
    tags = charts(events)["augmentation accuracy and level of chance"]
    assert tags == [f"{group}/augmentation_accuracy$" for group in ("train", "val", "warning_line")]


def test_lines_reach_from_the_first_to_the_last_step(fitted: Trainer, events: EventAccumulator) -> None:
    point = torch.ones(4 * 4, 8)  # 4 images under 4 strong augmentations, all of them one point
    expected = {
        "augmentation_accuracy": 1 / 4,
        "position_accuracy": 1 / 8,
        "probe_auroc": 1 / 2,
        "probe_pseudo_auroc": 1 / 2,
        "projection_std": COLLAPSED["train/projection_std"],
        "feature_std": COLLAPSED["train/feature_std"],
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


def test_pictures_are_drawn_once(events: EventAccumulator) -> None:
    for name in ("train/first_batch_views", "train/first_batch_position_pairs"):
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
    assert features.shape == (16, Encoder().features_size)
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
    assert read_events(folder).Tags()["images"] == ["train/first_batch_views", "train/first_batch_position_pairs"]


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


def test_views_have_a_row_per_image_and_a_column_per_distribution() -> None:
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


@pytest.mark.fit
def test_what_is_not_learned_has_no_charts(images: Path, tmp_path: Path) -> None:
    """SimCLR: no tasks, nothing strongly augmented to probe, and no pairs to be shown."""
    views = PretextViews(Identity(), size=32, pairs=0)
    module = CCD(warmup_steps=2, augmentation_weight=0, position_weight=0)
    trainer = fit(images, TensorBoardLogger(tmp_path, "simclr"), views, module, max_epochs=2)
    events = read_events(Path(trainer.log_dir or ""))
    scalars = events.Tags()["scalars"]
    assert not [name for name in scalars if "augmentation" in name or "position" in name]
    assert [name for name in scalars if "probe" in name] == [
        "warning_line/probe_pseudo_auroc",
        "val/probe_pseudo_auroc",
    ]
    laid_out = charts(events)
    assert len(laid_out) == 8
    for title, tags in laid_out.items():
        for tag in tags:
            assert len([name for name in scalars if re.match(tag, name)]) == 1, (title, tag)
    point = torch.ones(4, 8)  # 4 images, each of them one instance
    expected = pytest.approx(float(nt_xent(point, point, 0.2)))
    assert list(curve(events, "warning_line/train_contrastive").values()) == [expected] * 3
    assert events.Tags()["images"] == ["train/first_batch_views"]
    assert (Path(trainer.log_dir or "") / "projector_config.pbtxt").exists()
