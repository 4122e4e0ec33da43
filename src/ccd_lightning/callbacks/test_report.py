"""Callback that evaluates a test and writes metrics, predictions, figures and the report."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from ccd_lightning.callbacks.dashboard import tensorboard
from ccd_lightning.checkpoints import fingerprint
from ccd_lightning.commands import command
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.dataset import EpochIndex
from ccd_lightning.data.depth import describe_window
from ccd_lightning.distributed import gather_ranks
from ccd_lightning.metrics.bootstrap import RESAMPLES, SEED, is_grouped
from ccd_lightning.metrics.detection import DetectionMetrics, Evaluation, ImageRecord, part_of
from ccd_lightning.metrics.intervals import false_positive_interval
from ccd_lightning.metrics.names import partly_masked
from ccd_lightning.metrics.pixel_table import PIXELS, write_pixels
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.modules.held_out import PIXEL_QUANTILE
from ccd_lightning.modules.normal_images import anomaly_data
from ccd_lightning.reading import read_text
from ccd_lightning.reporting.content import Content
from ccd_lightning.reporting.hparams import hyperparameters, log_hyperparameters
from ccd_lightning.reporting.html import FIGURES, REPORT, write_html
from ccd_lightning.reporting.metrics_json import METRICS, write_metrics
from ccd_lightning.reporting.model_card import CARD, write_card
from ccd_lightning.reporting.predictions_csv import PREDICTIONS, write_predictions
from ccd_lightning.reporting.summary import print_summary
from ccd_lightning.runs import CONFIG
from ccd_lightning.visualization.figures import (
    DPI,
    Case,
    histogram_figure,
    overlay_figure,
    precision_recall_figure,
    roc_figure,
    select_cases,
)
from ccd_lightning.writing import atomic_write


class TestReport(Callback):
    """Writes metrics.json, predictions.csv, pixels.npz, report.html, model_card.md and figures/ to the run's folder.

    Metrics and figures are also written to TensorBoard.

    The module's test step returns `scores` (B,) and, for a detector, `maps` (B, H, W). Its `threshold` and
    `normal_scores` come from held-out normal images. Only this callback reads labels and masks.
    """

    __test__ = False  # not a test class of pytest

    def __init__(self) -> None:
        self.metrics = DetectionMetrics()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resets the metrics of an earlier test."""
        tensorboard(trainer)  # before the first value is logged, so that it has a description
        self.metrics = DetectionMetrics(float(getattr(pl_module, "pixel_threshold", math.nan)))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects a batch."""
        self.metrics.update(batch, outputs["scores"], outputs.get("maps"))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates the test, and writes and prints the results, on the first rank."""
        states = gather_ranks(self.metrics.state())
        folder = Path(str(trainer.log_dir))  # on every rank: Lightning broadcasts it
        if not trainer.is_global_zero:
            return
        total = DetectionMetrics.merged(states)
        threshold = float(torch.as_tensor(pl_module.threshold))
        evaluation = total.compute(threshold)
        logged = {name.removeprefix("test/"): float(value) for name, value in trainer.callback_metrics.items()}
        evaluation.metrics |= {f"pretext/{name}": value for name, value in logged.items()}
        records = total.records
        data = describe_split(anomaly_data(trainer), records)
        data["size_bounds"] = total.size_bounds()
        run, config = describe_run(pl_module, records), config_of(trainer, folder)
        write_pixels(folder / PIXELS, table := total.pixel_table())
        write_metrics(folder / METRICS, evaluation, data, run)
        held_out = torch.as_tensor(pl_module.normal_scores).cpu().double().numpy()
        masks = {str(row.path): row.masks for row in anomaly_data(trainer).datasets["test"].rows}
        write_predictions(folder / PREDICTIONS, records, threshold, held_out, masks=masks)
        figures = self._figures(trainer, pl_module, total, evaluation)
        if trainer.logger:
            computed = {name: value for name, value in evaluation.metrics.items() if not name.startswith("pretext/")}
            trainer.logger.log_metrics({f"test/{name}": value for name, value in computed.items()})
        if writer := tensorboard(trainer):
            log_hyperparameters(writer, hyperparameters(config) | {"data": data["root"]}, evaluation.metrics)
        save_figures(folder / "figures", figures, trainer.logger)
        kinds = Counter(part_of(record.anomaly_type) for record in records if record.label)
        content = Content(os.path.relpath(folder), evaluation, kinds, data, run, config, pl_module.device)
        write_html(folder / REPORT, content, [folder / "figures" / name for name in figures])
        if complaint := write_card(folder / CARD, content):
            rank_zero_warn(complaint)
        print_summary(evaluation, note=partly_masked(data) if "pixel/auroc" in evaluation.metrics else "")
        names = [
            METRICS,
            PREDICTIONS,
            *([PIXELS] if table else []),
            REPORT,
            CARD,
            *(f"figures/{name}" for name in sorted(figures)),
        ]
        print(f"\nWritten to {os.path.relpath(folder)}: {', '.join(names)}")
        print(f"The report to read, send or print: {os.path.relpath(folder / REPORT)}")
        print(f"Next: {command('view', os.path.relpath(folder))}")

    def _figures(
        self, trainer: Trainer, module: LightningModule, total: DetectionMetrics, evaluation: Evaluation
    ) -> dict[str, Figure]:
        records, threshold = total.records, float(torch.as_tensor(module.threshold))
        scores, labels = np.array([row.score for row in records]), np.array([row.label for row in records])
        groups = {
            anomaly_type: scores[[row.anomaly_type == anomaly_type for row in records]]
            for anomaly_type in dict.fromkeys(r.anomaly_type for r in records)
        }
        figures = {"histogram.png": histogram_figure(groups, threshold)}
        if "image/auroc" in evaluation.metrics:
            area, precision = (evaluation.metrics[f"image/{name}"] for name in ("auroc", "average_precision"))
            figures["roc.png"] = roc_figure(scores, labels, threshold, f"AUROC {area:.3f}")
            figures["precision_recall.png"] = precision_recall_figure(scores, labels, f"AP {precision:.3f}")
        if isinstance(module, OneClassDetector):
            paths = [records[index].path for index in select_cases(scores, labels)]
            cases = self._cases(trainer, module, paths)
            low, high = module.map_limits.tolist()
            figures["overlays.png"] = overlay_figure(cases, threshold, (low, high))
        return figures

    @staticmethod
    def _cases(trainer: Trainer, module: OneClassDetector, paths: list[str]) -> list[Case]:
        """Scores a few images again, so that maps need not be kept for all images."""
        dataset = anomaly_data(trainer).datasets["test"]
        indices = {str(row.path): index for index, row in enumerate(dataset.rows)}
        items = [dataset[EpochIndex(0, indices[path])] for path in paths]
        images = torch.stack([item["image"] for item in items]).float() / 255
        content = torch.stack([item["content"] for item in items])
        with torch.no_grad():
            output = module.evaluate({"image": images.to(module.device), "content": content.to(module.device)})
        return [
            Case(
                image.permute(1, 2, 0).double().numpy(),
                anomaly_map.double().numpy(),
                item["mask"].numpy() if item["has_mask"] else None,
                item["anomaly_type"],
                float(score),
            )
            for item, image, anomaly_map, score in zip(
                items, images, output["maps"].cpu(), output["scores"], strict=True
            )
        ]


def describe_split(datamodule: AnomalyDataModule, records: Sequence[ImageRecord]) -> dict[str, Any]:
    """Returns the location and numbers of the test images, and a digest of their names, labels and preprocessing."""
    root = datamodule.root
    base = datamodule.split.root if datamodule.split else root  # the folder of the table, if the root is a table
    names = [f"{os.path.relpath(record.path, base)} {record.label}" for record in records]
    digest = hashlib.sha256(os.fsencode("\n".join([datamodule.preprocessing.key, *names]))).hexdigest()
    return {
        "root": str(root),
        "training": len(datamodule.split.select("train")) if datamodule.split else None,
        "images": len(records),
        "abnormal": sum(record.label for record in records),
        "masks": sum(record.area is not None for record in records),
        "groups": len({record.group for record in records} - {""}),
        "split": digest[:16],
        "window": describe_window(datamodule.preprocessing.window),
    }


def describe_run(module: LightningModule, records: Sequence[ImageRecord]) -> dict[str, Any]:
    """Describes the tested model, the source of its thresholds, and the bootstrap; missing values are None."""
    thresholds = {
        name: float(torch.as_tensor(getattr(module, name, math.nan))) for name in ("threshold", "pixel_threshold")
    }
    held_out, quantile = len(torch.as_tensor(module.normal_scores)), getattr(module, "quantile", None)
    rate = None
    if quantile is not None and held_out and not math.isnan(thresholds["threshold"]):
        rate = false_positive_interval(held_out, quantile)
    return {
        "model": type(module).__name__,
        "seed": os.environ.get("PL_GLOBAL_SEED"),
        "encoder": fingerprint(*getattr(module, "encoders", None) or [module.encoder]),
        "changed": getattr(module, "changed", {}),
        **{name: None if math.isnan(value) else value for name, value in thresholds.items()},
        "threshold_rule": {
            "quantile": quantile,
            "held_out_images": held_out,
            "false_positive_rate": rate,
            "pixel_quantile": PIXEL_QUANTILE,
        },
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED, "unit": "group" if is_grouped(records) else "image"},
    }


def config_of(trainer: Trainer, folder: Path) -> str:
    """Returns the run's config as YAML, otherwise the one in the checkpoint, otherwise an empty string."""
    file = folder / CONFIG
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return read_text(file)
    kept = (callback for callback in trainer.callbacks if isinstance(callback, SaveConfigCallback))  # type: ignore[attr-defined]
    return next((callback.parser.dump(callback.config, skip_none=False) for callback in kept), "")


def save_figures(folder: Path, figures: dict[str, Figure], logger: Any) -> None:
    """Writes figures as PNG files and to TensorBoard under "test/"; removes old files of an earlier test."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FIGURES.keys() - figures.keys():
        (folder / name).unlink(missing_ok=True)
    for name, figure in figures.items():
        pixels = rendered(figure)  # once for both: this takes most of the time of a small test
        with atomic_write(folder / name) as partial:
            Image.fromarray(pixels).save(partial, format="PNG", dpi=(DPI, DPI))
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(f"test/{Path(name).stem}", pixels, dataformats="HWC")


def rendered(figure: Figure) -> NDArray[np.uint8]:
    """Renders a figure at `DPI` dots per inch: (H, W, 3) in 0..255."""
    figure.set_dpi(DPI)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[:, :, :3]
