"""Configs of a command: names of shipped configs are resolved, and the run is named after its config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ccd_lightning import runs, shipped
from ccd_lightning.commands import expand
from ccd_lightning.errors import UserError
from ccd_lightning.similar import did_you_mean, similar
from ccd_lightning.yaml_files import read_mapping

OPTIONS = ("--config", "-c")


def find_configs(argv: list[str]) -> list[str]:
    """Replaces names of shipped configs by their paths, unless a file with this name exists.

    Args:
        argv: A command and its options.

    Raises:
        UserError: If there is neither such a file nor such a shipped config.
    """
    found = list(argv)
    for index, (before, value) in _configs(argv).items():
        found[index] = before + _find(value)
    return found


def run_name(argv: list[str]) -> str | None:
    """Returns the name of a fit's run: that of the last config that defines what to train.

    Configs with only trainer settings, such as those of `trainer/`, do not change the run's name.

    Args:
        argv: A command and its options, as returned by `find_configs`.

    Returns:
        The config's file name without its suffix, or None if there is no such config; Lightning then chooses the name.
    """
    telling = [value for _, value in _configs(argv).values() if _says_what(value)]
    return Path(telling[-1]).stem if telling else None


def default_logger(argv: list[str]) -> dict[str, Any]:
    """Returns the logger used if the configs name none: TensorBoard, in a folder of runs named after the config.

    Args:
        argv: As in `run_name`.
    """
    name = run_name(argv)
    arguments = {"save_dir": str(runs.ROOT), "default_hp_metric": False} | ({"name": name} if name else {})
    return {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": arguments}


def _configs(argv: list[str]) -> dict[int, tuple[str, str]]:
    """Returns the arguments that are configs, by index: the text before the config in the argument, and the config."""
    found: dict[int, tuple[str, str]] = {}
    for index, arg in enumerate(argv):
        option, equals, value = arg.partition("=")
        if option in OPTIONS and equals:
            found[index] = (f"{option}=", value)
        elif option in OPTIONS and index + 1 < len(argv):
            found[index + 1] = ("", argv[index + 1])
    return found


def _find(value: str) -> str:
    """Returns the path of a config. Inline content, URLs and standard input are returned unchanged for the parser."""
    if not value:
        raise UserError("--config is empty. Give a file, or the name of a shipped config.")
    path = expand(value)
    if _is_file(path):
        read_mapping(path, "sections such as model, data and trainer")
        return str(path)
    if file := shipped.find(value):
        return str(file)
    if path.exists():
        raise UserError(
            f"{path}: {'a folder' if path.is_dir() else 'no regular file'}. Give the path of a config in it."
        )
    if value == "-" or "://" in value or isinstance(_content(value), dict):
        return value
    names = shipped.names()
    asked = Path(value).with_suffix("").as_posix().removeprefix("configs/")
    same = [name for name in names if asked in (name, Path(name).name)]
    question = did_you_mean(same or similar(asked, names, most=3), "")
    hint = f"; {question}" if question else "."
    raise UserError(
        f"{value}: there is no such config file, nor a shipped config{hint} Give a file, or one of {', '.join(names)}."
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # inline content longer than the maximum length of file names
        return False


def _content(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None  # reported by the parser


def _says_what(value: str) -> bool:
    """Returns whether a config file contains more than trainer settings. Assumed for URLs, which are not read."""
    path = Path(value)
    if not _is_file(path):
        return "://" in value
    content = _content(path.read_text(encoding="utf-8", errors="replace"))
    return not (isinstance(content, dict) and content.keys() <= {"trainer"})
