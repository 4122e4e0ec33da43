"""Check of the methods of a user's own classes: they must accept the arguments with which they are called."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterator
from inspect import Parameter
from types import FunctionType
from typing import Any

from ccd_lightning.errors import UserError

PACKAGE = __name__.partition(".")[0]
BY_POSITION = ("content", "generator")  # parameters that are passed by position, although they have a default
BY_NAME = ("stage",)  # and by name, although they have none
OPTIONAL = ("content",)  # passed for images with a margin only


def is_packaged(item: type | Callable[..., Any]) -> bool:
    """Returns whether a class or function is one of this package."""
    return f"{item.__module__}.".startswith(f"{PACKAGE}.")


def check_overrides(
    kind: type, base: type | None = None, names: Collection[str] = (), without: Collection[str] = OPTIONAL
) -> None:
    """Checks that the methods that a class overrides accept the arguments of those that they replace.

    Properties must stay properties, and methods must stay methods. Methods of this package, private methods, and steps,
    whose arguments Lightning looks up, are not checked.

    Args:
        kind: The class.
        base: A class with the same methods, if it need not be a base class.
        names: Names of the methods. By default, all public ones.
        without: Parameters that the methods need not have.

    Raises:
        UserError: If one does not, or is a property instead of a method, or a method instead of a property.
    """
    if is_packaged(kind):
        return
    for name, own, original in _overridden(kind, base):
        if name not in names if names else name.startswith("_") or name.endswith("_step"):
            continue
        if isinstance(own, FunctionType) and isinstance(original, property):
            raise UserError(
                f"{_place(own)}: {kind.__name__}.{name} is a method, but must be a property. Write @property above it."
            )
        if isinstance(own, property) and isinstance(own.fget, FunctionType) and isinstance(original, FunctionType):
            raise UserError(
                f"{_place(own.fget)}: {kind.__name__}.{name} is a property, but must be a method. Remove @property"
                " above it."
            )
        if isinstance(own, FunctionType) and isinstance(original, FunctionType):
            expected = list(inspect.signature(original).parameters.values())
            if not _accepts(own, [one for one in expected if one.name not in without]):
                raise UserError(
                    f"{_place(own)}: {kind.__name__}.{name} has the parameters {_shown(own)}, but must accept those of"
                    f" {original.__qualname__}: {_shown(original)}."
                )


def _overridden(kind: type, base: type | None) -> Iterator[tuple[str, Any, Any]]:
    """Yields the name of each attribute that is not of this package but replaces one, the attribute, and the original.

    Attributes are as classes store them: methods as functions, properties as properties.
    """
    packaged = [one for one in (*kind.__mro__, *([base] if base else [])) if is_packaged(one)]
    for name in dict.fromkeys(name for one in kind.__mro__ if not is_packaged(one) for name in vars(one)):
        own = next(vars(one)[name] for one in kind.__mro__ if name in vars(one))
        original = next((vars(one)[name] for one in packaged if name in vars(one)), None)
        if own is not original:
            yield name, own, original


def _place(function: FunctionType) -> str:
    """Returns the file and line of a function."""
    return f"{os.path.relpath(function.__code__.co_filename)}, line {function.__code__.co_firstlineno}"


def _accepts(own: FunctionType, expected: list[Parameter]) -> bool:
    if any(one.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD) for one in expected):
        return True
    named = [one.name for one in expected if one.name in BY_NAME or one.default is not Parameter.empty]
    named = [name for name in named if name not in BY_POSITION]
    try:
        inspect.signature(own).bind(*[None] * (len(expected) - len(named)), **dict.fromkeys(named))
    except TypeError:
        return False
    return True


def _shown(function: FunctionType) -> str:
    """Returns the parameters of a function, without annotations."""
    signature = inspect.signature(function)
    plain = [one.replace(annotation=Parameter.empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))
