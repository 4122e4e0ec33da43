from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ccd_lightning.callbacks.throughput import Throughput


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
