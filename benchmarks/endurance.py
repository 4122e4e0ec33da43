"""Whether memory and open files stay where they are over many calls and steps in one process: prints one table.

    python benchmarks/endurance.py --calls 2000 --minutes 120

Each row is one kind of work, repeated. Memory is what the process has in use after the first tenth of the calls and at
the end; garbage is never collected by hand, as in programs that call the package.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ccd_lightning import load
from ccd_lightning.cli import main

SMALL = ["--data.size=64", "--data.train=12", "--data.test_good=5", "--data.test_abnormal=6", "--data.batch_size=6"]
VIEWS = ["--data.views.size=32", "--data.views.patch_size=16"]
MB = 1 << 20


def resident() -> float:
    """Memory of this process in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1024


def descriptors() -> int:
    """Open files, pipes and sockets of this process."""
    return len(os.listdir("/proc/self/fd"))


def quietly(*words: str) -> None:
    """Runs a command, whose output nobody wants."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as errors:
        code = main(words)
    if code:
        raise SystemExit(errors.getvalue())


class Watch(Callback):
    """Notes memory and descriptors while it trains, and stops after a time.

    Args:
        seconds: Until it stops.
    """

    seen: list[tuple[float, int]] = []  # noqa: RUF012  # of the only training
    seconds = 60.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self.begun = time.monotonic()
        self.seen.clear()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes how it is."""
        self.seen.append((resident(), descriptors()))
        trainer.should_stop = time.monotonic() > self.begun + self.seconds


def repeated(work: Callable[[], object], calls: int) -> Iterator[tuple[float, int]]:
    """Memory and descriptors after each call."""
    for _ in range(calls):
        work()
        yield resident(), descriptors()


def row(name: str, seen: list[tuple[float, int]], seconds: float) -> None:
    """Prints how memory and descriptors went."""
    early = seen[len(seen) // 10]
    memory, files = seen[-1][0] - early[0], seen[-1][1] - early[1]
    peak = max(found for found, _ in seen)
    sizes = f"{early[0]:8.0f} {seen[-1][0]:8.0f} {peak:8.0f}"
    print(f"{name:34} {len(seen):6} {seconds:7.0f} {sizes} {memory:+8.1f} {files:+6}", flush=True)


def measure(name: str, work: Callable[[], object], calls: int) -> None:
    """Repeats some work, and prints its row."""
    begun = time.monotonic()
    seen = list(repeated(work, calls))
    row(name, seen, time.monotonic() - begun)


def score(run: str, images: torch.Tensor) -> None:
    """Opens a detector and scores images."""
    with torch.inference_mode():
        load(run)(images)


def run(calls: int, minutes: float) -> None:
    """Fits small runs in the working directory, and measures."""
    quietly("fit", "--config", "padim_synthetic", *SMALL, "--model.encoder.weights", "null")
    print(f"{'work':34} {'calls':>6} {'s':>7} {'MB':>8} {'MB end':>8} {'MB peak':>8} {'change':>8} {'files':>6}")
    images = torch.rand(6, 3, 64, 64)
    measure("load and score", lambda: score("runs/padim_synthetic", images), calls)
    measure('main(["predict", ...])', lambda: quietly("predict", "--ckpt_path", "runs/padim_synthetic"), calls)
    Watch.seconds = 60 * minutes
    begun = time.monotonic()
    words = [f"--trainer.callbacks+={__name__}.Watch", "--trainer.max_epochs=1000000"]  # until `Watch` stops it
    quietly("fit", "--config", "ccd_synthetic", *SMALL, *VIEWS, *words)
    row("epochs of two steps of CCD", Watch.seen, time.monotonic() - begun)
    logs = sum(file.stat().st_size for file in Path("runs/ccd_synthetic").rglob("events*"))
    steps = 2 * max(1, len(Watch.seen))
    print(f"TensorBoard's file of that training: {logs / MB:.1f} MB, {logs / steps:.0f} bytes a step")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300, help="of each command; default: 300")
    parser.add_argument("--minutes", type=float, default=5, help="of training; default: 5")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        run(arguments.calls, arguments.minutes)
        os.chdir("/")
