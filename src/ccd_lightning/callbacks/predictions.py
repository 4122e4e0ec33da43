"""Callback that writes scores, overlays and maps during prediction, for any number of images."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from ccd_lightning.data.image_files import ImageFiles
from ccd_lightning.data.placement import Placement
from ccd_lightning.distributed import gather_ranks
from ccd_lightning.errors import Terminated, UserError
from ccd_lightning.metrics.detection import ImageRecord
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.reporting.csv_writer import GrowingTables
from ccd_lightning.reporting.predictions_csv import PREDICTIONS, cells, columns, prediction_of
from ccd_lightning.reporting.regions_csv import COLUMNS, REGIONS, find_regions, region_rows
from ccd_lightning.visualization.overlays import Maps
from ccd_lightning.visualization.picture_writer import MAPS, OVERLAYS, MapFormat, PictureWriter
from ccd_lightning.visualization.volume_maps import require_volumes
from ccd_lightning.writing import atomic_write, naming, path_cell

ERRORS, SCALE = "errors.csv", "maps.json"
HEADS = {PREDICTIONS: columns(labelled=False), REGIONS: COLUMNS, ERRORS: ["path", "reason"]}
MAX_REPORTED = 20  # maximum number of skipped images that are printed individually


class Tally(NamedTuple):
    """Numbers of images that were scored, called abnormal, skipped, and with maps clipped by a 16-bit PNG."""

    scored: int = 0
    abnormal: int = 0
    skipped: int = 0
    cut: int = 0

    def plus(self, *others: Tally) -> Tally:
        """Returns the sum of this and other tallies."""
        return Tally(*map(sum, zip(self, *others, strict=True)))


class ImagePredictions(BasePredictionWriter):
    """Writes predictions.csv, regions.csv, errors.csv, overlays and maps batch by batch, and keeps nothing in memory.

    The data module is `ImageFiles`. Each rank writes its own tables, which the first rank joins at the end.

    Args:
        run: Folder of the run.
        output: Folder without predictions; None creates the next of RUN/predictions/version_0, 1, ...
        maps: File format of the maps.
        overlays: Whether to write overlays of the maps on the images.
    """

    tables: GrowingTables
    pictures: PictureWriter

    def __init__(self, run: Path, output: Path | None = None, maps: MapFormat = "none", overlays: bool = True) -> None:
        super().__init__("batch")
        self.run = run
        self.output = output
        self.maps = maps
        self.overlays = overlays
        self.tally = Tally()  # of this rank; at the end, on the first rank, of all ranks

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Creates the output folder on the first rank, and prepares the tables."""
        if not isinstance(pl_module, OneClassDetector):
            return  # its predict step raises an error
        data = getattr(trainer, "datamodule", None)
        assert isinstance(data, ImageFiles)  # the only one that the command line passes
        low, high = pl_module.map_limits.tolist()
        if self.maps == "png" and math.isnan(high):
            raise UserError(
                "16-bit PNG maps need the range of normal maps, which this run does not have. Give --maps npy."
            )
        if self.maps == "nifti":
            require_volumes(list(data.paths))
        claimed = _claim(self.output, self.run / "predictions") if trainer.is_global_zero else None
        claimed = trainer.strategy.broadcast(claimed)
        if isinstance(claimed, UserError):
            raise claimed
        folder, base = Path(str(claimed)), os.path.commonpath({os.path.dirname(os.path.abspath(p)) for p in data.paths})
        self.tally, self.tables = Tally(), GrowingTables(folder, HEADS, trainer.global_rank)
        self.pixel_threshold = float(pl_module.pixel_threshold)
        self.normal_scores = pl_module.normal_scores.cpu().double().numpy()
        self.pictures = PictureWriter(
            folder, base, data.preprocessing, float(pl_module.threshold), (low, high), self.maps, self.overlays
        )

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Writes a batch: pictures first, so that every image with a row also has its pictures."""
        scores, maps = prediction["scores"].cpu().double().tolist(), prediction["maps"].float().cpu()
        placements = map(Placement.from_numbers, batch["placement"].tolist())
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            drawn = list(pool.map(self._draw, batch["path"], scores, maps.numpy(), placements, batch["reason"]))
        reasons = [reason for reason, _ in drawn]
        results = list(zip(batch["path"], scores, reasons, strict=True))
        good = [ImageRecord(path, -1, "", score) for path, score, reason in results if not reason]
        bad = [(path_cell(path), reason) for path, _, reason in results if reason]
        threshold = self.pictures.threshold
        self.tables.append(
            PREDICTIONS,
            [cells(prediction_of(record, self.normal_scores), threshold, labelled=False) for record in good],
        )
        if not math.isnan(self.pixel_threshold):
            self.tables.append(REGIONS, [row for _, rows in drawn for row in rows])
        if bad:
            self.tables.append(ERRORS, bad)
            self._report(bad)
        abnormal = sum(record.score > threshold for record in good)
        cut = (maps.amax(dim=(1, 2)) > self.pictures.top) & torch.tensor([not reason for reason in reasons])
        self.tally = self.tally.plus(Tally(len(good), abnormal, len(bad), int(cut.sum())))
        if trainer.received_sigterm:
            raise Terminated(self.so_far())

    def _draw(
        self, path: str, score: float, anomaly_map: Maps, placement: Placement, reason: str
    ) -> tuple[str, list[list[str]]]:
        """Writes the pictures of an image; returns the reason if this fails, or "", and its rows of regions.csv."""
        if reason:
            return reason, []
        try:
            with naming(self.tables.folder):
                self.pictures.write(path, score, anomaly_map, placement)
        except UserError as error:  # the file was deleted or changed after scoring
            return str(error).removeprefix(f"{Path(path)}: "), []
        if math.isnan(self.pixel_threshold):
            return "", []
        regions = find_regions(placement.restore(anomaly_map), self.pixel_threshold)
        return "", region_rows(path, regions, self.pictures.limits[1])

    def _report(self, bad: Sequence[tuple[str, str]]) -> None:
        for number, (path, reason) in enumerate(bad, self.tally.skipped):
            if number < MAX_REPORTED:
                print(f"ccd: skipped {path}: {reason}", file=sys.stderr)
            elif number == MAX_REPORTED:
                print(f"ccd: more images are skipped: {self.tables.path(ERRORS)} lists all", file=sys.stderr)

    def so_far(self) -> str:
        """Returns the location of the results written before an interruption."""
        return f"{self.tally.scored} images are in {os.path.relpath(self.tables.path(PREDICTIONS))}."

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Closes the tables and removes empty folders."""
        if hasattr(self, "tables"):
            with contextlib.suppress(OSError):  # for example a full disk, which is the exception itself
                self.tables.close()
                self.tables.folder.rmdir()
                if self.output is None:
                    self.tables.folder.parent.rmdir()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Joins the tables of all ranks on the first rank."""
        self.tables.close()
        tallies = gather_ranks(self.tally)
        if not trainer.is_global_zero:
            return
        self.tally = Tally().plus(*tallies)
        self.tables.join(len(tallies))
        if self.maps != "none":
            file = self.tables.folder / SCALE
            with atomic_write(file) as partial:
                partial.write_text(json.dumps(self.pictures.description(), indent=2) + "\n", encoding="utf-8")

    def summary(self) -> str:
        """Returns the number of images and the location of the results; on the first rank."""
        folder, tally = os.path.relpath(self.tables.folder), self.tally
        called = f"{tally.abnormal} of them called abnormal"
        if math.isnan(self.pictures.threshold):
            called = "without decisions, because the run has no threshold"
        skipped = f"; {tally.skipped} skipped, see {ERRORS}" if tally.skipped else ""
        names = [PREDICTIONS, *[REGIONS] * (not math.isnan(self.pixel_threshold)), *[ERRORS] * bool(tally.skipped)]
        names += [f"{OVERLAYS}/"] * self.pictures.draws
        names += [f"{MAPS}/", SCALE] if self.maps != "none" else []
        lines = [f"\n{tally.scored} images scored, {called}{skipped}", f"Written to {folder}: {', '.join(names)}"]
        if self.maps == "png" and tally.cut:
            lines.append(f"{tally.cut} maps exceed the range of a PNG and are clipped; --maps npy keeps all values.")
        if self.pictures.draws:
            lines.append(f"See {folder}/{OVERLAYS}: a line surrounds regions that hardly ever occur in normal images.")
        elif self.overlays:
            lines.append("No overlays, because the run has no range of normal maps: fit again with validation.")
        return "\n".join(lines)


def _claim(output: Path | None, default: Path) -> Path | UserError:
    """Creates the output folder and checks that it has no results. Errors are returned, to be raised on all ranks."""
    try:
        if output is None:
            numbers = [int(found.name[8:]) for found in default.glob("version_*") if found.name[8:].isdecimal()]
            folder = default / f"version_{max(numbers, default=-1) + 1}"
            folder.mkdir(parents=True)
            return folder
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return UserError(f"{output or default}: cannot be written to ({error.strerror}). Give --output DIR.")
    present = next((name for name in (PREDICTIONS, REGIONS, ERRORS, OVERLAYS, MAPS) if (output / name).exists()), None)
    if present:
        return UserError(f"{output / present} exists already, from another prediction. Give another --output DIR.")
    return output
