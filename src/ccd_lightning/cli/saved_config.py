"""The config and the split that a run stores in its folder and, for the config, in every checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from ccd_lightning import runs
from ccd_lightning.checkpoints import CONFIG_KEY, DIVISION_KEY
from ccd_lightning.cli.relocation import ORIGIN_KEY
from ccd_lightning.data.manifest import Manifest
from ccd_lightning.errors import UserError
from ccd_lightning.modules.normal_images import anomaly_data
from ccd_lightning.writing import atomic_write


class KeepConfig(SaveConfigCallback):
    """Writes the config to the run's folder and to every checkpoint, which makes checkpoints self-contained.

    The split, which may have been drawn at random, is written to the folder, too.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the files when fitting starts. A test uses those of its run."""
        if stage != "fit" or not trainer.loggers:
            return
        folder = self.folder = Path(str(trainer.log_dir))  # on every rank, because Lightning broadcasts it
        self.overwrite = (folder / self.config_filename).exists()  # of this run, as checked by `refuse_other_run`
        self.config = self._with_window(trainer)
        self.config["ckpt_path"] = None  # the config defines the run, independent of where it was last resumed
        self.save_to_log_dir = False  # Lightning would not write there atomically
        super().setup(trainer, pl_module, stage)
        split = anomaly_data(trainer).split
        if split and trainer.is_global_zero:
            keep_split(split, folder / runs.MANIFEST)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the config on the first rank."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder / self.config_filename) as partial:
            partial.write_text(self.parser.dump(self.config, skip_none=False), encoding="utf-8")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the config, the folder to which its relative paths refer, and the digests of the held-out images."""
        checkpoint[CONFIG_KEY] = self.parser.dump(self._with_window(trainer), skip_none=False)
        checkpoint[ORIGIN_KEY] = os.getcwd()
        if division := anomaly_data(trainer).division:
            checkpoint[DIVISION_KEY] = division.state()

    def _with_window(self, trainer: Trainer) -> Namespace:
        """Returns the config with the window that was measured on the training images, for test and predict."""
        config = self.config.clone()
        window = anomaly_data(trainer).preprocessing.window
        if window is not None and "data.init_args.window" in config:
            config["data.init_args.window"] = window
        return config


def refuse_other_run(trainer: Trainer, checkpoint: str | None) -> None:
    """Raises an error before a logger writes to the folder of another run.

    Args:
        trainer: Trainer of the fit.
        checkpoint: Path of the checkpoint to resume, if any. A run may only be resumed in its own folder.
    """
    folder = Path(getattr(trainer.logger, "log_dir", None) or "") if trainer.is_global_zero else Path()
    own = checkpoint and runs.run_folder(Path(checkpoint)).resolve() == folder.resolve()
    if trainer.loggers and folder != Path() and (folder / runs.CONFIG).exists() and not own:
        raise UserError(
            f"{folder}: this folder already contains another run. Give --trainer.logger.init_args.version another name."
        )


def keep_split(split: Manifest, file: Path) -> None:
    """Writes the split, or checks that a resumed run has the same split as before."""
    check_split(split, file)
    split.write(file)


def refuse_trained(split: Manifest, file: Path) -> None:
    """Raises an error if test images are among the training images of the run whose split is stored in a file."""
    trained = {row.path for row in Manifest.read(file, split.root).select("train")}
    if seen := [row.path for row in split.select("test") if row.path in trained]:
        raise UserError(
            f"{seen[0]} is a test image, but was used for training, like {len(seen) - 1} others. Test on the run's own"
            f" split with --data.layout {quote(str(file))}, or fit again."
        )


def _partition(split: Manifest) -> dict[Path, Path | None]:
    """Maps each training image to the first image of its group, because group names may differ between machines."""
    first: dict[str, Path] = {}
    rows = sorted((row.path, row.group) for row in split.select("train") if row.group)
    for path, group in rows:
        first.setdefault(group, path)
    return {path: first[group] for path, group in rows}


def check_split(split: Manifest, file: Path) -> None:
    """Raises an error if the split differs from the one stored in a run's folder, if there is one."""
    if file.is_file():
        old = Manifest.read(file, split.root)
        before, now = ({(row.path, row.split) for row in one.rows} for one in (old, split))
        if changed := {path for path, _ in before ^ now}:
            raise UserError(
                f"{file}: {len(changed)} images were added, removed or moved to the other split since the run began."
                f" Restore them, or start a new run, with --data.layout {quote(str(file))} for the old split."
            )
        if _partition(old) != _partition(split):
            raise UserError(
                f"{file}: images are not grouped by patient or video as they were when the run began. Resume it with"
                f" --data.layout {quote(str(file))}."
            )
