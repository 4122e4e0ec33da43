"""Finding a run's data when a command is started in another folder than the run's fit."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from ccd_lightning.commands import expand

ORIGIN_KEY = "ccd_origin"  # under which a checkpoint carries the working directory of its fit
DEPTH = 3  # of a run's folder below the fit's: runs/<name>/<version>


def relocate(config: dict[str, Any], run: Path, origin: str | None, given: Collection[str]) -> None:
    """Makes relative paths of the data absolute where they exist only relative to the folder of the fit.

    That is the folder which the checkpoint names, or, where run and data were moved together, the one that holds
    `runs`. A path that exists in the working directory is left as it is.

    Args:
        config: Of the run; changed in place.
        run: The run's folder.
        origin: The fit's working directory, None in older checkpoints.
        given: Options of the command, which override the config.
    """
    settings = config.get("data", {}).get("init_args") or {}
    above = list(run.resolve().parents)[DEPTH - 1 : DEPTH]
    bases = [*([Path(origin)] if origin else []), *above]
    for key in ("root", "layout", "cache_dir"):
        value = settings.get(key)
        if not (value and isinstance(value, str)) or {f"--data.{key}", f"--data.init_args.{key}"} & set(given):
            continue
        if expand(value).exists():
            continue
        if key == "layout" and not str(value).lower().endswith(".csv"):
            continue  # a layout's name
        found = next((base / value for base in bases if (base / expand(value)).exists()), None)
        if found:
            settings[key] = str(found)
            if key == "root":
                rank_zero_only(print)(f"data.root: {found} (relative to the folder of the fit)")
