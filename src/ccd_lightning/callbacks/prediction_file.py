"""The callback that writes down scores of images whose labels nobody looks at."""

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
    """Writes path, score, percentile and decision of every image into the run's folder, and keeps no map.

    Its records stay in memory, a few hundred bytes each, where the data module keeps the images themselves.

    Args:
        run: The run's folder.
    """

    def __init__(self, run: Path) -> None:
        super().__init__("batch")
        self.run = run
        self.records: list[ImageRecord] = []
        self._summary = ""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets earlier images."""
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
        """Writes the file, on one rank for all."""
        gathered = gather_ranks(self.records)  # on every rank
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
        """Where the file is, and how many images are called abnormal; on the first rank."""
        return self._summary

    def so_far(self) -> str:
        """What a break leaves: nothing."""
        return ""
