"""The configs of a command: shipped ones by their names, and the run's name from theirs."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml

from ccd_lightning import runs, shipped
from ccd_lightning.commands import expand
from ccd_lightning.errors import UserError
from ccd_lightning.yaml_files import read_mapping

OPTIONS = ("--config", "-c")


def find_configs(words: list[str]) -> list[str]:
    """Puts the path of a shipped config in the place of its name, unless there is a file of that name.

    Args:
        words: A command and its options.

    Raises:
        UserError: If there is neither a file nor a shipped config.
    """
    found = list(words)
    for index, (before, value) in _configs(words).items():
        found[index] = before + _find(value)
    return found


def run_name(words: list[str]) -> str | None:
    """The name of a fit's run: that of the last config which says what to train.

    Configs with nothing but settings of the trainer, such as those of `trainer/`, leave the run's name as it is.

    Args:
        words: A command and its options, as `find_configs` returns them.

    Returns:
        The config's file name without its ending; None without such a config, which leaves the name to Lightning.
    """
    telling = [value for _, value in _configs(words).values() if _says_what(value)]
    return Path(telling[-1]).stem if telling else None


def default_logger(words: list[str]) -> dict[str, Any]:
    """The logger of a command whose configs name none: TensorBoard, in a folder of runs that is named after the config.

    Args:
        words: As in `run_name`.
    """
    name = run_name(words)
    arguments = {"save_dir": str(runs.ROOT), "default_hp_metric": False} | ({"name": name} if name else {})
    return {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": arguments}


def _configs(words: list[str]) -> dict[int, tuple[str, str]]:
    """The words that are configs, by their places: what comes before the config within the word, and the config."""
    found: dict[int, tuple[str, str]] = {}
    for index, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in OPTIONS and equals:
            found[index] = (f"{option}=", value)
        elif option in OPTIONS and index + 1 < len(words):
            found[index + 1] = ("", words[index + 1])
    return found


def _find(value: str) -> str:
    """The path of a config; content, addresses and the standard input, which the parser takes too, as they are."""
    if not value:
        raise UserError("--config is empty. Give a file, or the name of a shipped config.")
    path = expand(value)
    if _is_file(path):
        read_mapping(path, "sections such as model, data and trainer")
        return str(path)
    if path.exists():
        raise UserError(
            f"{path}: {'a folder' if path.is_dir() else 'no regular file'}. Give the path of a config in it."
        )
    if file := shipped.find(value):
        return str(file)
    if value == "-" or "://" in value or isinstance(_content(value), dict):
        return value
    names = shipped.names()
    asked = Path(value).with_suffix("").as_posix().removeprefix("configs/")
    same = [name for name in names if asked in (name, Path(name).name)]
    close = same or difflib.get_close_matches(asked, names, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"Give a file, or one of {', '.join(names)}."
    raise UserError(f"{value}: there is no such config file, nor a shipped config. {hint}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # content that is longer than names of files may be
        return False


def _content(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None  # which the parser will report


def _says_what(value: str) -> bool:
    """Whether a config file says more than how to train; one at an address is not read for that."""
    path = Path(value)
    if not _is_file(path):
        return "://" in value
    content = _content(path.read_text(encoding="utf-8", errors="replace"))
    return not (isinstance(content, dict) and content.keys() <= {"trainer"})
