"""Definition of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

METRICS = ("image/auroc", "pixel/auroc", "pixel/aupro")
Options = Mapping[str, str]  # options of a command, such as "data.size": "128"


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        name: Name in the study, which replaces `<set>` in the names of configs.
        root: Folder of the data set, absolute or relative to the folder of all sets.
        data: Class of the data module, None for that of each config.
        options: Options of all runs on this set.
        counts: Expected numbers of training, normal test and abnormal test images. Differences are reported.
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
        config: Path or name of a config, in which `<set>` stands for the data set's name. None for no config.
        model: Class of the model.
        options: Options of the fit.
    """

    config: str | None
    model: str | None = None
    options: Options = field(default_factory=dict)


@dataclass(frozen=True)
class EncoderChoice:
    """An encoder, given by weights or by its pretraining.

    Attributes:
        name: Name in the study.
        weights: As in `--model.encoder.weights`; None if they are created by pretraining.
        network: Name of the network in timm, None for that of the study.
        pretraining: How the weights are pretrained, None for existing weights.
        local: How the weights of the local scale's encoder are pretrained, which IGD needs.
        origin: Pretrained encoder whose weights initialise pretraining. None for the weights that the config names.
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
        name: Name in the study.
        method: How it is fitted.
    """

    name: str
    method: Method


@dataclass(frozen=True)
class PublishedFigure:
    """A published result.

    Attributes:
        data: Name of the data set in the study.
        value: Value of the metric.
        source: Publication.
        protocol: Test images and how the value was measured.
        encoder: Encoder in whose row the value is shown. None for a separate row.
        method: Name of the detector or method in the paper, if it adds information.
        metric: Name of the metric as in metrics.json.
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
    """A study, as defined by its file.

    Attributes:
        file: Path of the study file.
        output: Folder of its runs, tables and figures.
        sets: Data sets by name.
        encoders: Encoders by name.
        detectors: Detectors by name.
        seeds: Seeds. Each cell is run once with each of them.
        network: Network of all encoders that name none. None for that of the configs.
        options: Options of all runs.
        compare: Pairs of encoders whose difference is tested.
        metrics: Metrics of the tables, named as in metrics.json.
        published: Published results.
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
