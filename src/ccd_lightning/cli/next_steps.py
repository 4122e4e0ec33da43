"""The end of a fit: writes the run's record and prints the next command."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities import rank_zero_only

from ccd_lightning import runs, shipped
from ccd_lightning.cli.known_classes import usable
from ccd_lightning.commands import command
from ccd_lightning.data.datasets import Folder
from ccd_lightning.data.recognition import AUTO
from ccd_lightning.data.sources import AXIAL
from ccd_lightning.encoder_config import EncoderSource
from ccd_lightning.errors import UserError
from ccd_lightning.metrics.calibration import few_held_out
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.reporting.content import versions
from ccd_lightning.writing import atomic_link, atomic_write

PRETRAININGS = ("ccd", "simclr", "pmsacl")  # prefixes of shipped configs


class Following(NamedTuple):
    """A type of detector that can be fitted after pretraining.

    Attributes:
        kind: Prefix of its shipped configs.
        encoder: The model's option for the pretrained encoder.
        tiles: Whether that encoder is pretrained on tiles of the images.
        sizes: Further options that must equal the size of the images.
        others: Options that its config for any folder requires in addition, with placeholder values.
    """

    kind: str
    encoder: str = "encoder"
    tiles: bool = False
    sizes: tuple[str, ...] = ()
    others: Mapping[str, str] = MappingProxyType({})


# At the end of a fit, the first one that is shipped for the data set is suggested.
FOLLOWING = (
    Following("neighbours"),
    Following("padim"),
    Following("igd", "local_encoder", True, ("model.global_scale.size",), {"model.encoder.weights": "GLOBAL_RUN"}),
)


def class_path(model: LightningModule) -> str:
    """Returns the import path by which a config names a model."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


@rank_zero_only
def record_run(run: Path, cli: LightningCLI, sources: Mapping[str, EncoderSource]) -> None:
    """Records that a run is finished, makes it the latest, and prints the next step.

    Args:
        run: Folder of the run.
        cli: The command.
        sources: Sources of the encoders' weights, by the model's options.

    Raises:
        UserError: If the run has no checkpoint.
    """
    if runs.checkpoint_of(run) is None:
        raise UserError(
            f"{run}: no checkpoint was written, so this run can be neither tested nor used. Let it reach the end of an"
            " epoch (--trainer.max_epochs), and do not turn off --trainer.enable_checkpointing."
        )
    record = {
        "model": class_path(cli.model),
        "encoder": _describe(sources),
        "encoders": {
            name: {"name": getattr(cli.model, name).name, "weights": source.weights, "digest": source.digest}
            for name, source in sources.items()
        },
        "finished": runs.time_to_record(run.parents[1]).isoformat(),
        "seed": cli.config["fit"]["seed_everything"],
        "epochs": cli.trainer.current_epoch,
        "steps": cli.trainer.global_step,
        "versions": versions(),
    }
    with atomic_write(run / runs.RECORD) as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    latest = run.parent / runs.LATEST
    if latest.is_symlink() or not latest.exists():
        atomic_link(latest, run.name)
    few = _threshold_note(cli.model)
    print(f"\n{few}The run is in {os.path.relpath(run)}\nNext: {_next_command(run, cli)}")


def _threshold_note(model: LightningModule) -> str:
    """Returns a note on a detector's threshold if few images were held out."""
    if not isinstance(model, OneClassDetector) or bool(model.threshold.isnan()):
        return ""
    few = few_held_out(len(model.normal_scores), model.quantile)
    return f"{few}\n" if few else ""


def _describe(sources: Mapping[str, EncoderSource]) -> str:
    """Describes the sources of all encoders in one line."""
    if list(sources) == ["encoder"]:
        return sources["encoder"].weights
    scales = {"encoder": "global_scale", "local_encoder": "local_scale"}
    return ", ".join(f"{scales.get(name, name)} {source.weights}" for name, source in sources.items())


def _next_command(run: Path, cli: LightningCLI) -> str:
    data = cli.datamodule
    if isinstance(cli.model, OneClassDetector):
        known = {class_path(cli.model), class_path(data)} <= usable().keys()
        return command("test", *([] if known else ["--trust"]))
    following, config, named = _following(run, data.tile > 0)
    options: dict[str, object] = {}
    if not named or isinstance(data, Folder):
        options["data.root"] = data.root
    if isinstance(data, Folder):
        options |= {"data.layout": data.layout} if data.layout != AUTO else {}
        options |= {"data.split_seed": data.split_seed} if data.split_seed != 0 else {}
        options |= {} if data.groups else {"data.groups": "false"}
        options |= {"data.axis": data.axis} if data.axis != AXIAL else {}
    if shipped.value(config, "data.init_args.size") != data.preprocessing.size:
        size = data.preprocessing.size
        options |= dict.fromkeys(("data.size", *following.sizes), size if isinstance(size, int) else list(size))
    if (crop := data.preprocessing.crop) and (not named or isinstance(data, Folder)):
        options["data.crop"] = crop if crop == "auto" else list(crop)
    if data.preprocessing.fit != (shipped.value(config, "data.init_args.fit") or "squash"):
        options["data.fit"] = data.preprocessing.fit
    if window := data.preprocessing.window:
        options["data.window"] = list(window) if isinstance(window, tuple) else window
    weights = f"{following.encoder}.weights"
    taken = shipped.value(config, f"model.init_args.{weights}")  # the newest finished run of this name
    if not named or taken != (runs.ROOT / run.parent.name).as_posix():
        options[f"model.{weights}"] = os.path.relpath(run)
    options |= {} if named else following.others
    arguments = [argument for name, value in options.items() for argument in (f"--{name}", str(value))]
    return command("fit", "--config", config, *arguments)


def _following(run: Path, tiles: bool) -> tuple[Following, str, bool]:
    """Returns the detector to fit on a run's encoder, its config, and whether that config is for the run's data set."""
    detectors = [one for one in FOLLOWING if one.tiles == tiles]
    kind, _, name = run.parent.name.partition("_")
    if kind in PRETRAININGS and run.parent.resolve() == (runs.ROOT / run.parent.name).resolve():
        for one in detectors:
            if (config := f"{one.kind}_{name.removesuffix('_local')}") in shipped.names():
                return one, config, True
    one = next(one for one in detectors if f"{one.kind}_folder" in shipped.names())
    return one, f"{one.kind}_folder", False
