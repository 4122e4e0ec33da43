"""Check that a resumed run takes the same steps as an uninterrupted one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer

from ccd_lightning.checkpoints import CONFIG_KEY
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.errors import UserError

SETTINGS = {  # settings that determine the position in an epoch and the learning rate, with their options
    "images": "data.root and data.validation",
    "seed": "seed_everything",
    "accumulate": "trainer.accumulate_grad_batches",
    "limit": "trainer.limit_train_batches",
}


def check_same_steps(path: Path, checkpoint: dict[str, Any], data: AnomalyDataModule, trainer: Trainer) -> None:
    """Raises an error if a run would resume with different steps.

    Otherwise images would be skipped or repeated, and the learning rate would jump. Other batch sizes and numbers of
    processes are allowed if an epoch has the same number of batches, because these are then the same.

    Args:
        path: Path of the checkpoint.
        checkpoint: Content of the checkpoint.
        data: Data module, set up for the fit.
        trainer: Trainer of the fit.

    Raises:
        UserError: If the steps differ.
    """
    saved = checkpoint.get(type(data).__qualname__)
    if not isinstance(saved, dict) or "epoch" not in saved:
        return
    now = data.pace(trainer)
    batches = saved.get("batches") or _batches(checkpoint, saved, data, trainer)
    for name, option in SETTINGS.items():
        harmless = name == "limit" and batches == now["batches"]
        if saved.get(name, now[name]) != now[name] and not harmless:
            what = "images to train on" if name == "images" else option
            raise UserError(
                f"{path}: saved with {what}: {saved[name]}, but now it is {now[name]}. Resume with the same {option},"
                " or start a new run without --ckpt_path."
            )
    if batches != now["batches"]:
        raise UserError(
            f"{path}: saved with {batches} batches per epoch, but with data.batch_size {now['batch_size']} and"
            f" {now['ranks']} processes there are {now['batches']}: images would be skipped or repeated."
            f" {_resume_hint(saved, batches, data, trainer)}, or start a new run without --ckpt_path."
        )


def _batches(checkpoint: dict[str, Any], saved: dict[str, Any], data: AnomalyDataModule, trainer: Trainer) -> int:
    """Returns the batches per epoch of an older checkpoint, from its counters or else its config's batch size."""
    if saved["epoch"]:
        done: int = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"]
        return (done - int(saved["batch"])) // int(saved["epoch"])
    config = yaml.safe_load(checkpoint.get(CONFIG_KEY, "")) or {}
    size = config.get("data", {}).get("init_args", {}).get("batch_size", data.batch_size)
    return int(data.pace(trainer, size)["batches"])


def _resume_hint(saved: dict[str, Any], batches: int, data: AnomalyDataModule, trainer: Trainer) -> str:
    """Suggests a batch size that gives the current processes the same number of batches, or else the old settings."""
    whole = saved.get("batch_size", 0) * saved.get("ranks", 0) // trainer.world_size
    sizes = [whole, *range(1, len(data.datasets["train"]) + 1)]
    fitting = next((size for size in sizes if size and data.pace(trainer, size)["batches"] == batches), None)
    if fitting:
        return f"Resume with --data.batch_size {fitting}"
    return "Resume with the batch size and the devices of before"
