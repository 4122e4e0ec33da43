"""Parsing of jsonargparse's messages: a tree of keys and tried types, whose first branch contains the cause."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ccd_lightning.writing import short_text

KEY = re.compile(r"Parser key \"([\w.]+)\":")
GIVEN = re.compile(r"Given value:\s*(.*)")
GOT = re.compile(r"\. Got value: (.*?)(?:\. Got value: .*)?$", re.DOTALL)
NO_CONFIG = "Unable to load config"  # printed for an option of several values that is given a single value
NO_CLASS = "Not a valid subclass of"
CLASS = "the name of a class, or '{class_path: NAME, init_args: {OPTION: VALUE}}'"
STRUCTURE = (
    "Subclass types expect",
    "a class path (str)",
    "a dict with",
    "Does not validate against",
    "Subtypes:",
    "Errors:",
    "Given value",
    "Problem with given class_path",
)
NESTED = re.compile(r"^NestedArg\(key='[\w.]+', val=(.*)\)$")
KINDS = {  # expected types in words, by the parser's names for them
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "<class 'tuple'>": "a list",
    "<class 'list'>": "a list",
    "typing.List": "a list",
    "typing.Dict": "a mapping",
    "<class 'dict'>": "a mapping",
    "<class 'datetime.timedelta'>": "a time such as 00:12:00:00 (days, hours, minutes, seconds)",
}


@dataclass
class Complaint:
    """The errors in a message about one key.

    Attributes:
        key: The full key.
        leaves: The error for each of the types that were tried.
        value: The given value as shown by the parser; empty if it is not shown.
    """

    key: str
    leaves: list[str] = field(default_factory=list)
    value: str = ""

    @property
    def kinds(self) -> list[str]:
        """Expected types of the option in words; empty if something other than the type is wrong."""
        null = "Expected a <class 'NoneType'>"
        found = [_kind(leaf) for leaf in self.leaves if leaf != null]
        words = re.findall(r"typing\.Literal\[(.*)\]", "\n".join(self.leaves))
        names = dict.fromkeys(name for word in words for name in word.split(", ") if name.startswith("'"))
        known = [kind for kind in dict.fromkeys(found) if kind] + [f"one of {', '.join(names)}"] * bool(names)
        return known + ["null"] * (null in self.leaves and CLASS not in known) if known else []


def first_complaint(message: str) -> Complaint | None:
    """Returns the errors of the first branch that ends in a type, or None if the message has no key."""
    stack: list[tuple[int, str]] = []
    found: Complaint | None = None
    for indent, line in _lines(message):
        while stack and stack[-1][0] >= indent and not line.startswith(NO_CONFIG):
            stack.pop()
        keys = KEY.findall(line)
        stack += [(indent, key) for key in keys]
        text = KEY.split(line)[-1].strip() if keys else line
        path = ".".join(key for _, key in stack)
        if found and path != found.key:
            if not path.startswith(f"{found.key}."):
                break
            found = None  # of several types, the one with parts contains the error
        if not path or not text:
            continue
        if given := GIVEN.match(text):
            if found and not found.value:
                found.value = _plain(given[1])
        elif not text.startswith(STRUCTURE):
            found = found or Complaint(path)
            got = GOT.search(text)
            one = re.match(rf"{NO_CONFIG} ['\"](.*)['\"]$", text)
            found.value = found.value or (_plain(got[1]) if got else one[1] if one else "")
            found.leaves.append(GOT.sub("", text))
    if found:
        found.key = found.key.replace("init_args.", "")
    return found


def _lines(message: str) -> Iterator[tuple[int, str]]:
    """Yields the lines with their indentation. Each bullet counts as a level."""
    for line in message.splitlines():
        text = line.lstrip(" ")
        indent = len(line) - len(text)
        while text.startswith("- "):
            indent, text = indent + 2, text[2:].lstrip(" ")
        if text:
            yield indent, text


def _plain(value: str) -> str:
    return short_text(NESTED.sub(r"\1", value.strip()).strip("'\""))


def _kind(leaf: str) -> str | None:
    if leaf.startswith(NO_CONFIG):
        return "a mapping of options"
    if leaf.startswith(NO_CLASS):
        return CLASS
    if not (found := re.match(r"Expected an? (.*)$", leaf, re.DOTALL)):
        return None
    text = found[1].strip().rstrip(".")
    if several := re.match(r"tuple with (\d+) elements", text):
        return f"a list of {several[1]} values"
    return KINDS.get(text)
