"""Callback that writes the scores of images without reading labels."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from ccd_lightning.distributed import gather_ranks
from ccd_lightning.metrics.detection import ImageRecord
from ccd_lightning.reporting.predictions_csv import write_predictions

FILE = "unlabelled_predictions.csv"


class PredictionFile(BasePredictionWriter):
    """Writes path, score, percentile and decision of every image to the run's folder, without maps.

    Records are kept in memory, a few hundred bytes each, which is little beside the decoded images of the data module.

    Args:
        run: Folder of the run.
    """

    def __init__(self, run: Path) -> None:
        super().__init__("batch")
        self.run = run
        self.records: list[ImageRecord] = []
        self._summary = ""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resets the records of earlier images."""
        self.records = []

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
        """Collects a batch."""
        scores = prediction["scores"].cpu().double().tolist()
        self.records += [ImageRecord(path, -1, "", score) for path, score in zip(batch["path"], scores, strict=True)]

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gathers the records and writes the file on the first rank."""
        gathered = gather_ranks(self.records)  # must be called on every rank
        if not trainer.is_global_zero:
            return
        records = sorted(record for share in gathered for record in share)
        threshold = float(torch.as_tensor(pl_module.threshold))
        held_out = torch.as_tensor(pl_module.normal_scores).cpu().double().numpy()
        write_predictions(self.run / FILE, records, threshold, held_out, labelled=False)
        abnormal = sum(record.score > threshold for record in records)
        called = "without decisions, because the run has no threshold"
        if not math.isnan(threshold):
            called = f"{abnormal} of {len(records)} images are called abnormal"
        self._summary = f"\n{os.path.relpath(self.run / FILE)}: {called}"

    def summary(self) -> str:
        """Returns the path of the file and the number of images called abnormal; on the first rank."""
        return self._summary

    def so_far(self) -> str:
        """Returns what an interrupted run has written: nothing."""
        return ""
