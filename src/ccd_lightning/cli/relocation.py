"""Finding of a run's data if a command is started in another folder than the run's fit."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from ccd_lightning.commands import expand

ORIGIN_KEY = "ccd_origin"  # checkpoint key of the fit's working directory
DEPTH = 3  # depth of a run's folder below that of the fit: runs/<name>/<version>


def relocate(config: dict[str, Any], run: Path, origin: str | None, given: Collection[str]) -> None:
    """Makes relative data paths absolute if they exist only relative to the folder of the fit.

    This is the folder recorded in the checkpoint or, if run and data were moved together, the folder that contains
    `runs`. Paths that exist in the working directory are not changed.

    Args:
        config: Config of the run, changed in place.
        run: Folder of the run.
        origin: Working directory of the fit, None in older checkpoints.
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
            continue  # name of a layout
        found = next((base / value for base in bases if (base / expand(value)).exists()), None)
        if found:
            settings[key] = str(found)
            if key == "root":
                rank_zero_only(print)(f"data.root: {found} (relative to the folder of the fit)")
