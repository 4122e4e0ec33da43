"""Argument parser for commands other than Lightning's, with errors of one sentence."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, NoReturn

from ccd_lightning.cli.synonyms import usual_option
from ccd_lightning.commands import expand
from ccd_lightning.errors import UserError
from ccd_lightning.similar import did_you_mean, similar


class Arguments(argparse.ArgumentParser):
    """A parser that does not accept abbreviated options, and raises `UserError`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | options)

    def error(self, message: str) -> NoReturn:
        """Reports a parsing error.

        Raises:
            UserError: Always.
        """
        text = message.removeprefix("argument ").replace(": is empty", " is empty")
        text = re.sub(r"(?<!\S)(--?[\w.]+)(?:/--?[\w.]+)+", r"\1", text)  # the first of an option's names
        hint = ""
        if found := re.match(r"unrecognized arguments: (-\S+)", message):
            text = f"there is no option {found[1]}"
            name = found[1].split("=")[0]
            usual = f"--{(usual_option(name.lstrip('-').rpartition('.')[2]) or '').rpartition('.')[2]}"
            close = [usual] if usual in self._option_string_actions else []
            close = close or similar(name, self._option_string_actions)
            hint = f"; {did_you_mean(close, '')}" if close else ""
        complete = text.endswith("leave the option out")
        raise UserError(f"{self.prog}: {text}{hint or '.'}{'' if complete else f' See `{self.prog} --help`.'}")


class Subcommand(Arguments):
    """The parser of a command below another. Unknown options are errors here, where similar ones are known."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses all options."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def path_type(text: str) -> Path:
    """Converts an option's value to a path; `~` is the home folder.

    Raises:
        argparse.ArgumentTypeError: If it is empty, which would mean the working directory.
    """
    if not text:
        raise argparse.ArgumentTypeError("is empty. Give a path, or leave the option out")
    return expand(text)
