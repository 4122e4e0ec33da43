"""Printing of warnings, on the terminal, as messages of the command."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
_python = warnings.formatwarning


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Formats warnings of this package as `ccd: warning: MESSAGE`, without the line of code that raised them."""
    before = warnings.formatwarning
    use_plain_warnings()
    try:
        yield
    finally:
        warnings.formatwarning = before


def use_plain_warnings() -> None:
    """Sets the format. Importing Lightning replaces it by its own, so this is called again afterwards."""
    warnings.formatwarning = _format


def printable(text: str) -> str:
    """Escapes characters that a terminal would interpret: names and contents of files may come from anyone."""
    return "".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text)


def _format(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    if issubclass(category, UserWarning) and Path(filename).is_relative_to(PACKAGE):
        return f"ccd: warning: {printable(str(message))}\n"
    return _python(message, category, filename, lineno, line)
