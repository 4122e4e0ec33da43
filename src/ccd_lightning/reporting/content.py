"""Content shared by the report and the model card, by section."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from jinja2 import Environment, StrictUndefined

from ccd_lightning import __version__
from ccd_lightning.metrics.calibration import few_held_out
from ccd_lightning.metrics.definitions import GROUPS, MEANS, MEASURES, Measure
from ccd_lightning.metrics.detection import SIZES, SUBSET_METRICS
from ccd_lightning.metrics.names import partly_masked
from ccd_lightning.metrics.records import Evaluation


class Cell(NamedTuple):
    """A metric's value with its interval, or the reason why it is undefined."""

    value: float | None
    ends: tuple[float, float] | None
    reason: str


class Content(NamedTuple):
    """Content of a page.

    Attributes:
        name: Name of the run.
        evaluation: Metrics of the run.
        kinds: Number of test images of each kind of abnormality, by the name of its part (`part_of`).
        data: Section "data" of metrics.json.
        run: Section "run" of metrics.json.
        config: Config of the run as YAML, "" if unknown.
        device: Device of the test.
    """

    name: str
    evaluation: Evaluation
    kinds: Mapping[str, int]
    data: Mapping[str, Any]
    run: Mapping[str, Any]
    config: str
    device: torch.device


def measured(evaluation: Evaluation) -> list[str]:
    """Returns the names of all metrics, including undefined ones, in the order in which they are shown."""
    every = evaluation.metrics.keys() | evaluation.undefined.keys()
    return [*(name for name in MEASURES if name in every), *sorted(every - MEASURES.keys())]


def render(
    template: Path,
    content: Content,
    autoescape: bool,
    filters: Mapping[str, Callable[[Any], str]] | None = None,
    **more: object,
) -> str:
    """Renders a template.

    Args:
        template: Path of the Jinja template.
        content: Content of the page.
        autoescape: Whether the template is HTML.
        filters: Additional filters for the template.
        more: Additional variables for the template.

    Returns:
        The page, with one line break at its end.
    """
    evaluation, run, names = content.evaluation, content.run, measured(content.evaluation)
    environment = Environment(autoescape=autoescape, undefined=StrictUndefined)
    environment.filters |= filters or {}
    page = environment.from_string(template.read_text(encoding="utf-8")).render(
        name=content.name,
        run=run,
        date=f"{datetime.now(UTC):%d %B %Y}",
        images=_image_facts(content.data),
        rules=_rules(run),
        resampling=_resampling(run),
        optimistic=any(_measure(name).optimistic for name in names),
        groups=_groups(evaluation, [name for name in names if not _part_name(name)]),
        notes={GROUPS["pixel/"]: partly_masked(content.data), GROUPS["pixel/mean_"]: MEANS},
        parts=_parts(content, [name for name in names if _part_name(name)]),
        origin=_origin(content),
        config=content.config,
        **more,
    )
    return page.rstrip("\n") + "\n"


def _measure(name: str) -> Measure:
    return MEASURES.get(name, Measure(name.partition("/")[2], ""))


def cell_of(evaluation: Evaluation, name: str) -> Cell:
    """Returns a metric with its interval, as shown on the page."""
    return Cell(evaluation.metrics.get(name), evaluation.intervals.get(name), evaluation.undefined.get(name, ""))


def _part_name(name: str) -> str:
    """Returns the part of the abnormal images to which a metric refers, or "" if it refers to all of them."""
    return next((name.removeprefix(f"{stem}/") for stem in SUBSET_METRICS if name.startswith(f"{stem}/")), "")


def _groups(evaluation: Evaluation, names: Sequence[str]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Returns titles and tables of the metrics about all images."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        title = next((title for start, title in GROUPS.items() if name.startswith(start)), "Others")
        row = {"name": name, "cell": cell_of(evaluation, name), **_measure(name)._asdict()}
        groups.setdefault(title, []).append(row)
    return list(groups.items())


def _parts(content: Content, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Returns tables with one row for each part of the abnormal images, by kind and by size."""
    low, high = (f"{bound:.1%}" for bound in content.data["size_bounds"] or (0, 0))
    sizes = dict(zip(SIZES, (f"small: up to {low}", f"medium: up to {high}", f"large: above {high}"), strict=True))
    columns = [f"{MEASURES[name].title} ({name.partition('/')[0]}s)" for name in SUBSET_METRICS]
    found = dict.fromkeys(map(_part_name, names))
    kinds = {part: f"{part} ({content.kinds[part]})" for part in found if part not in sizes}
    tables = []
    for title, first, parts in (
        ("By kind of abnormality", "kind (images)", kinds),
        ("By size of the lesion", "share of the image", {part: sizes[part] for part in SIZES if part in found}),
    ):
        rows = [
            (label, [cell_of(content.evaluation, f"{name}/{part}") for name in SUBSET_METRICS])
            for part, label in parts.items()
        ]
        if rows:
            tables.append((title, first, columns, rows))
    return tables


def _image_facts(data: Mapping[str, Any]) -> list[tuple[str, Any]]:
    groups = data["groups"]
    return [
        ("Folder", data["root"]),
        ("Normal images", data["images"] - data["abnormal"]),
        ("Abnormal images", data["abnormal"]),
        ("Abnormal images with a mask", f"{data['masks']} of {data['abnormal']}"),
        ("Patients or videos", groups or "not known, so images are treated as independent"),
        *([("Images of more than 8 bits", data["window"])] if data.get("window") else []),
        ("Digest of names, labels and preprocessing", data["split"]),
    ]


def _rules(run: Mapping[str, Any]) -> list[str]:
    """Describes how the thresholds were set."""
    rule = run["threshold_rule"]
    held_out, quantile = rule["held_out_images"], rule["quantile"]
    source = f"the {100 * quantile:g}% quantile of the scores of" if quantile else "set from"
    if run["threshold"] is None:
        sentences = ["No threshold was set, so no image is called normal or abnormal."]
    else:
        sentences = [
            f"An image is called abnormal when its score is above {run['threshold']:.4g}. This threshold is {source}"
            f" {held_out} normal images that were held out from training. No abnormal image was used."
        ]
        if few := few_held_out(held_out, quantile):
            sentences.append(few)
    if run["changed"]:
        settings = ", ".join(f"{name} {value}" for name, value in run["changed"].items())
        sentences.append(f"The test used other settings than the fit: {settings}.")
    if run["pixel_threshold"] is not None:
        sentences.append(
            f"A pixel is marked when its value is above {run['pixel_threshold']:.4g}, the"
            f" {100 * rule['pixel_quantile']:g}% quantile of the held-out normal images' pixels."
        )
    return sentences


def _resampling(run: Mapping[str, Any]) -> str:
    unit = {"image": "images", "group": "patients or videos"}[run["bootstrap"]["unit"]]
    return f"The 95% intervals show how the metrics may vary with other test {unit} of the same kind."


def _origin(content: Content) -> list[tuple[str, Any]]:
    run, device, bootstrap = content.run, content.device, content.run["bootstrap"]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    return [
        ("Run", content.name),
        ("Model", run["model"]),
        ("Digest of the encoder's weights", run["encoder"]),
        ("Seed", "none" if run["seed"] is None else run["seed"]),
        ("Bootstrap", f"{bootstrap['resamples']} resamples, drawn by {bootstrap['unit']}, seed {bootstrap['seed']}"),
        ("Tested on", name),
        ("Processor", f"{processor()}, {os.cpu_count()} cores"),
        *versions().items(),
    ]


def versions() -> dict[str, str]:
    """Returns the versions of this package and of the packages on which results depend."""
    return {
        "ccd-lightning": __version__,
        "PyTorch": torch.__version__,
        "Lightning": lightning.__version__,
        "Python": f"{platform.python_version()} on {platform.system()}",
    }


def processor() -> str:
    """Returns the name of the CPU. On Linux it is read from /proc/cpuinfo."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
