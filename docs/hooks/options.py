"""The configuration reference, written from the code: every option with its type, its default and what it means."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from jsonargparse import ArgumentParser, Namespace

from ccd_lightning.data import datasets
from ccd_lightning.data.tiles import Tiles
from ccd_lightning.encoder_config import TrainedEncoderConfig
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.modules.ensemble import Ensemble
from ccd_lightning.modules.igd import IGD
from ccd_lightning.modules.mahalanobis import Mahalanobis
from ccd_lightning.modules.neighbours import Neighbours
from ccd_lightning.modules.padim import PaDiM
from ccd_lightning.modules.pmsacl import PMSACL
from ccd_lightning.transforms.medmix import MedMix
from ccd_lightning.transforms.pretext import PretextViews
from ccd_lightning.transforms.strong import Cutout, Noise

SECTIONS: tuple[tuple[str, tuple[type, ...], str], ...] = (  # heading, classes, and what stands before their options
    ("Encoder", (TrainedEncoderConfig,), "model.encoder"),
    ("Pretraining", (CCD, PMSACL), "model"),
    ("Detectors", (Neighbours, Mahalanobis, PaDiM, IGD, Ensemble), "model"),
    ("Data", (datasets.Folder,), "data"),
    (
        "Named data sets",
        (
            datasets.HyperKvasir,
            datasets.LAG,
            datasets.LiuColonoscopy,
            datasets.SyntheticColonoscopy,
            datasets.SyntheticFundus,
        ),
        "data",
    ),
    ("Views", (PretextViews,), "data.views"),
    ("Strong families", (Cutout, Noise, MedMix), "data.views.family"),
    ("Tiles", (Tiles,), "data.tiles"),
)
NAMES: dict[Any, str] = {bool: "true or false", int: "integer", float: "number", str: "text", type(None): "null"}

INTRODUCTION = """\
# Configuration

Every option of every model and data module, generated from the code. Options can be set on the command line, such as
`--model.temperature 0.1`, or in a config file:

```yaml
model:
  class_path: CCD
  init_args: {temperature: 0.1}
```

The command line takes precedence over configs, and a later `--config` over an earlier one. `ccd fit ... --print_config`
prints all effective settings, and `ccd fit --help` lists Lightning's own options (`--trainer...`). The
[shipped configs](configs.md) are good starting points.
"""

NOTES = {
    "Encoder": "Pretraining has all of these options, detectors have the first three. IGD has them twice:"
    " `model.encoder` for whole images, `model.local_encoder` for windows.",
    "Named data sets": "They have the options of `Folder`. Only differences are listed.",
}


class Option(NamedTuple):
    """One option.

    Attributes:
        name: As on the command line, without dashes.
        type: Which values it takes, in words.
        default: As in YAML; empty where it has to be given.
        meaning: From the docstring.
    """

    name: str
    type: str
    default: str
    meaning: str

    def row(self) -> str:
        """The option as a row of a Markdown table."""
        cells = (f"`{self.name}`", self.type, f"`{self.default}`" if self.default else "", self.meaning)
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def options(target: Callable[..., Any], prefix: str) -> list[Option]:
    """The options of a class, nested ones included, in the order of its constructor.

    Args:
        target: The class.
        prefix: What stands before each name, such as "model".
    """
    parser = ArgumentParser()
    parser.add_class_arguments(target, prefix, fail_untyped=False)
    defaults = parser.get_defaults(skip_validation=True)
    return [
        Option(
            action.dest,
            describe_type(action._typehint),
            "" if action.required else describe_default(defaults.get(action.dest)),
            (action.help or "").replace("%%", "%").replace("None", "null"),
        )
        for action in parser._actions
        if hasattr(action, "_typehint") and not action.dest.endswith(".help")
    ]


def describe_type(hint: Any) -> str:
    """Which values a type takes, in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(f'`"{value}"`' for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe_type(part) for part in arguments))
    if origin in (tuple, list):
        parts = [describe_type(part) for part in arguments if part is not Ellipsis]
        several = len(parts) == 1 or Ellipsis in arguments
        return f"list of {parts[0]}s" if several else f"[{', '.join(parts)}]"
    if origin is not None and "Optimizer" in str(hint):
        return "class of an optimiser"
    return NAMES.get(hint) or f"`{getattr(hint, '__name__', 'class')}`"


def describe_default(value: Any) -> str:
    """A default as it is written in YAML."""
    if isinstance(value, Namespace) and "class_path" in value:
        chosen = {name: value.init_args[name] for name in ("lr", "weight_decay") if name in value.init_args}
        return f"{value.class_path} {chosen}"
    if callable(value):
        return "see the class"
    if isinstance(value, list | tuple):
        return f"[{', '.join(describe_default(part) for part in value)}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def summary(target: type) -> str:
    """The first sentence of a class's docstring."""
    return " ".join((target.__doc__ or "").partition("\n\n")[0].split())


def reference() -> str:
    """The page, as Markdown."""
    lines, shared = [INTRODUCTION], set(options(datasets.Folder, "data"))
    for heading, targets, prefix in SECTIONS:
        lines += [f"\n## {heading}\n", NOTES.get(heading, "")]
        for target in targets:
            rows = [option for option in options(target, prefix) if not _is_elsewhere(option, prefix)]
            if heading == "Named data sets":
                rows = [option for option in rows if option not in shared]
            lines += _section(target, rows)
    return "\n".join(lines) + "\n"


def _section(target: type, rows: list[Option]) -> Iterator[str]:
    yield f"\n### {target.__name__}\n\n{summary(target)} Class `{target.__module__}.{target.__name__}`.\n"
    if rows:
        yield "| option | type | default | meaning |\n| --- | --- | --- | --- |"
        yield from (option.row() for option in rows)


def _is_elsewhere(option: Option, prefix: str) -> bool:
    """Whether it is one of the encoder's, in the table of a model."""
    return prefix == "model" and option.name.split(".")[1] in ("encoder", "local_encoder")
