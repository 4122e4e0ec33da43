"""Ends a fit with several processes with a clear message if one of them is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence

from lightning.pytorch import Callback, LightningModule, Trainer

from ccd_lightning.commands import then
from ccd_lightning.runs import resume_hint

INTERVAL = 0.5  # seconds; Lightning checks every five seconds, and then kills all processes


class WatchRanks(Callback):
    """Ends a fit with a message if one of its processes was killed, because the others would wait for it forever."""

    def __init__(self) -> None:
        self._over = threading.Event()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts monitoring in the process that started the others."""
        folder = trainer.log_dir  # on every rank: Lightning broadcasts it
        started = getattr(trainer.strategy.launcher, "procs", None)
        if started:
            self._over.clear()
            threading.Thread(target=self._watch, args=(started, folder), daemon=True).start()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops monitoring."""
        self._over.set()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stops monitoring, because the exception is reported anyway."""
        self._over.set()

    def _watch(self, started: Sequence[subprocess.Popen[bytes]], folder: str | None) -> None:
        while not self._over.wait(INTERVAL):
            killed = [-code for process in started if (code := process.poll()) is not None and code < 0]
            if killed:
                for process in started:
                    process.kill()
                print(f"ccd: {killed_rank(killed[0], folder)}", file=sys.stderr, flush=True)
                os._exit(2)  # the main thread is blocked, waiting for the killed process


def killed_rank(number: int | None, folder: str | None) -> str:
    """Returns the message about a killed process of a fit.

    Args:
        number: Number of the signal; None if unknown.
        folder: Folder of the run.
    """
    by = "" if number is None else f" by signal {number}"
    return (
        f"A process of this training was killed{by}, probably because memory ran out. Give a smaller"
        f" --data.batch_size or fewer --trainer.devices{then(resume_hint(folder))}"
    )
