"""What pages about a test are made of, in their tests."""

from __future__ import annotations

from typing import Any

import torch

from ccd_lightning.metrics.detection import SIZES, SUBSET_METRICS
from ccd_lightning.metrics.image import IMAGE_METRICS
from ccd_lightning.metrics.pixel_table import PIXEL_METRICS
from ccd_lightning.metrics.records import Evaluation
from ccd_lightning.reporting.content import Content

NASTY = "a<b>&\"c'"
METRICS = (*IMAGE_METRICS, *PIXEL_METRICS)


def content_of(evaluation: Evaluation, **changes: Any) -> Content:
    data = {
        "root": "data/x",
        "training": 60,
        "images": 7,
        "abnormal": 3,
        "masks": 3,
        "groups": 0,
        "split": "5b11",
        "size_bounds": None,
    }
    rule = {"quantile": 0.95, "held_out_images": 11, "pixel_quantile": 0.99}
    run = {
        "model": "PaDiM",
        "seed": "23",
        "encoder": "e1c0de",
        "changed": {},
        "threshold": 12.345678,
        "pixel_threshold": 3.25,
        "threshold_rule": rule,
        "bootstrap": {"resamples": 2000, "seed": 0, "unit": "image"},
    }
    for part in (data, run):
        part |= {name: value for name, value in changes.items() if name in part}
    config = changes.get("config", "seed_everything: 23\n")
    kinds = {"polyp": 2, NASTY: 1}
    return Content(changes.get("name", "runs/one"), evaluation, kinds, data, run, config, torch.device("cpu"))


def every_metric() -> Evaluation:
    """Every metric, of all images and of three parts and two kinds, each with a value and an interval of its own."""
    parts = ("", *(f"/{part}" for part in (*SIZES, "polyp", NASTY)))
    names = [f"{name}{part}" for part in parts for name in METRICS if not part or name in SUBSET_METRICS]
    metrics = {name: (index + 1) / 1000 for index, name in enumerate(names)}
    return Evaluation(metrics, {name: (value + 0.2, value + 0.4) for name, value in metrics.items()})
