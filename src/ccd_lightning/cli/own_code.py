"""Errors in the user's own classes, which the argument parser hides among those of the other types that it tried."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
STANDARD = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
# Installed packages need not be in this environment's own folder: PYTHONPATH or a .pth file may add others.
INSTALLED = {"site-packages", "dist-packages"}
LIBRARIES = ("jsonargparse", "lightning", "torch")  # call the user's code, and may have been copied anywhere
IMPORT_PATH = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")


def raised_in_own_code(error: BaseException | None) -> str:
    """Describes the error, among the causes of one, that was raised in a file of the user's own.

    Returns:
        Its type, message, file and line; empty if there is none.
    """
    for cause in reversed(list(causes(error))):
        locations = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(cause.__traceback__)]
        if isinstance(cause, SyntaxError) and cause.filename:
            locations.append((cause.filename, cause.lineno))
        if own := [(file, line) for file, line in locations if _is_own(file)]:
            file, line = own[-1]
            reason = cause.msg if isinstance(cause, SyntaxError) else " ".join(str(cause).split())
            return f"{type(cause).__name__}: {reason.rstrip('.')} ({os.path.relpath(file)}, line {line})"
    return ""


def describe_class(name: str, base: type) -> str:
    """Describes why an import path cannot be used as a class.

    Args:
        name: Import path, such as `package.module.Class`.
        base: Class that it should be a subclass of.

    Returns:
        A phrase, with the fix; empty if the name is no import path, or names such a class.
    """
    module, _, attribute = name.rpartition(".")
    if not IMPORT_PATH.fullmatch(name):
        return ""
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # whatever the file does when it is imported
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            return (
                f"there is no module {error.name}. Add the folder that contains it to PYTHONPATH (PYTHONPATH=FOLDER ccd"
                " ...), or install it"
            )
        reason = raised_in_own_code(error) or f"{type(error).__name__}: {error}"
        return f"importing {module} failed: {reason}"
    if not isinstance(found, type):
        classes = sorted(_classes(sys.modules[module], base))
        return f"{module} has no class {attribute}" + f"; it has {', '.join(classes)}" * bool(classes)
    if inspect.isabstract(found):
        methods = sorted(getattr(found, "__abstractmethods__", ()))
        return f"{name} does not define {', '.join(methods)}, as subclasses of {_definer(found, methods[0])} must"
    return ""


def _classes(module: object, base: type) -> Iterator[str]:
    for name, value in vars(module).items():
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == getattr(module, "__name__", ""):
            yield name


def _definer(found: type, method: str) -> str:
    return next(one.__name__ for one in found.__mro__ if method in vars(one))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and what it was raised from, the first cause last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_own(file: str) -> bool:
    path = Path(file)
    if not path.is_file() or INSTALLED & set(path.parts):
        return False
    files = [getattr(sys.modules.get(name), "__file__", None) for name in LIBRARIES]
    libraries = [Path(file).parent for file in files if file]
    return not any(path.is_relative_to(folder) for folder in (PACKAGE, *STANDARD, *libraries))
