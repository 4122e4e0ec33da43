"""What a study consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

METRICS = ("image/auroc", "pixel/auroc", "pixel/aupro")
Options = Mapping[str, str]  # of a command, such as "data.size": "128"


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        name: Its name in the study; it takes the place of `<set>` in the names of configs.
        root: Its folder, relative to the folder of all sets or absolute.
        data: The data module's class; None for that of each config.
        options: Of all runs on this set.
        counts: How many images there should be to train on, and normal and abnormal ones to test on; others are
            reported.
    """

    name: str
    root: str
    data: str | None = None
    options: Options = field(default_factory=dict)
    counts: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Method:
    """How a model is fitted: a config, a class, or a config whose model is replaced by a class.

    Attributes:
        config: Path or name of a config, in which `<set>` stands for the data set's name; None without one.
        model: A class.
        options: Of its fit.
    """

    config: str | None
    model: str | None = None
    options: Options = field(default_factory=dict)


@dataclass(frozen=True)
class EncoderChoice:
    """An encoder: weights, or a way to pretrain them.

    Attributes:
        name: Its name in the study.
        weights: As in `--model.encoder.weights`; of the weights that pretraining makes, None.
        network: The network's name in timm; None for the study's.
        pretraining: What makes the weights; None for weights that are there.
        local: What makes the weights of the local scale's encoder, which IGD needs.
        origin: The pretrained encoder whose weights pretraining starts from; None for those that the config names.
    """

    name: str
    weights: str | None = None
    network: str | None = None
    pretraining: Method | None = None
    local: Method | None = None
    origin: str | None = None


@dataclass(frozen=True)
class DetectorChoice:
    """A detector.

    Attributes:
        name: Its name in the study.
        method: How it is fitted.
    """

    name: str
    method: Method


@dataclass(frozen=True)
class PublishedFigure:
    """A figure from a paper.

    Attributes:
        data: Name of the data set in the study.
        value: The figure.
        source: Where it was published.
        protocol: On which images and how it was measured.
        encoder: The encoder in whose row it belongs; None for a row of its own.
        method: What the paper calls the detector or method, if that says more.
        metric: As in metrics.json.
    """

    data: str
    value: float
    source: str
    protocol: str
    encoder: str | None = None
    method: str = ""
    metric: str = "image/auroc"


@dataclass(frozen=True)
class Study:
    """A study, as its file defines it.

    Attributes:
        file: The study file.
        output: Folder of its runs, tables and figures.
        sets: Data sets by name.
        encoders: By name.
        detectors: By name.
        seeds: Each cell is run once with each of them.
        network: The network of all encoders that name none; None for the configs'.
        options: Of all runs.
        compare: Pairs of encoders whose difference is tested.
        metrics: Those of the tables, as in metrics.json.
        published: Figures from papers.
    """

    file: Path
    output: Path
    sets: Mapping[str, DataSet]
    encoders: Mapping[str, EncoderChoice]
    detectors: Mapping[str, DetectorChoice]
    seeds: tuple[int, ...]
    network: str | None = None
    options: Options = field(default_factory=dict)
    compare: tuple[tuple[str, str], ...] = ()
    metrics: tuple[str, ...] = METRICS
    published: tuple[PublishedFigure, ...] = ()
