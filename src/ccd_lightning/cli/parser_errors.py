"""From what the argument parser says to the sentence that matters."""

from __future__ import annotations

import difflib
import inspect
import re
from dataclasses import fields
from pathlib import Path

from lightning.pytorch import Trainer

from ccd_lightning.cli.known_classes import OWN
from ccd_lightning.encoder_config import TrainedEncoderConfig
from ccd_lightning.errors import UserError
from ccd_lightning.models.igd.settings import Training, WindowScale
from ccd_lightning.runs import FIRST

UNKNOWN = (
    r"Option '(?P<key>[\w.]+)' is not accepted",
    r"Group '(?P<group>[\w.]+)' does not accept option '(?P<key>[\w.]+)'",
    r"does not accept option '(?P<key>[\w.]+)'",
    r"unrecognized arguments: --(?P<key>[\w.]+)",
    r"Key '(?P<key>[\w.]+)' is not expected",
    r"Expected 'builtins.dict' to be a class.*NestedArg\(key='(?P<key>[\w.]+)'",  # options of a class that none names
)
MISSING = r"(?:Option|Key|key) [\"'](?P<key>[\w.]+)[\"'] is required|arguments are required: (?:fit\.)?(?P<first>\w+)"
NO_CLASS = (  # x.yaml is read as a class yaml of a module x, a/x.yaml as no import path
    r"Expected a dot import path string: (?P<name>\S+)"
    r"|Unexpected import path format: (?P<path>\S+)"
    r"|Problem with given class_path '(?P<file>[^']+\.(?:ya?ml|json))'"
)
DEVICES = {  # what Lightning says of devices, and what helps
    "No supported gpu backend": "trainer.accelerator is gpu, but PyTorch finds none here: give"
    " --trainer.accelerator cpu --trainer.precision 32-true, or install PyTorch for this machine's driver.",
    "But your machine only has": "trainer.devices: {told}. Ask for fewer with --trainer.devices.",
}
SEVERAL = {  # options of the data that may be of several kinds, of which the parser names each by itself
    "size": "a number of pixels, or '[HEIGHT, WIDTH]'",
    "crop": "'[LEFT, TOP, RIGHT, BOTTOM]' as fractions, auto, or null",
    "tiles": "a number, '{side: PIXELS, overlap: PIXELS, top: SHARE}', or null",
}
OF_SEVERAL = rf"Parser key \"(?P<key>{'|'.join(SEVERAL)})\":.*?Given value: (?P<value>[^\n]*)"
SECTIONS = ("seed_everything", "trainer", "model", "data", "optimizer", "lr_scheduler", "ckpt_path", "images")


def explain(message: str, error: BaseException | None = None) -> str:
    """Names the key that a parser complains of, and the way out.

    Args:
        message: The parser's message, which nests the cause under every type that was tried.
        error: What it stems from; a `UserError` among its causes says it best.

    Returns:
        One or two sentences.
    """
    if told := users_mistake(error):
        return str(told)
    outer = re.match(r"Parser key \"([\w.]+)\":", message)
    section = f"{outer.group(1)}." if outer else ""
    for pattern in UNKNOWN:
        if found := re.search(pattern, message, re.DOTALL):
            group = f"{found['group']}." if "group" in found.groupdict() else ""
            nested = re.findall(rf"NestedArg\(key='([\w.]+\.{found['key']})'", message)
            return _unknown(section + group, max(nested, key=len, default=found["key"]))
    if outer and outer[1] == "data" and (found := re.search(OF_SEVERAL, message, re.DOTALL)):
        value = re.sub(r"NestedArg\(key='\w+', val=(.*)\)", r"\1", found["value"])
        only_a_number = (
            found["key"] == "size" and "Expected a <class 'int'>. Got value" in found[0]
        )  # as of images that are drawn
        kind = "one number of pixels" if only_a_number else SEVERAL[found["key"]]
        return f"data.{found['key']} is {value}, but must be {kind}."
    if found := re.search(MISSING, message):
        key = section + (found["key"] or found["first"]).removeprefix("init_args.")
        if key in ("model", "data"):
            return f"There is no {key}. Give a config, such as: {FIRST}"
        return f"{key} is missing: give it with --{key} VALUE, or in the config."
    if found := re.search(NO_CLASS, message):
        keys = dict.fromkeys(re.findall(r"Parser key \"([\w.]+)\":", message[: found.start()]))
        return _no_class(".".join(keys), found["name"] or found["path"] or found["file"])
    return _cause(section, message)


def explain_trainer(message: str) -> str:
    """What Lightning says of a trainer that cannot be, with the way out where it gives none."""
    told = " ".join(message.split())
    return next((sentence.format(told=told) for part, sentence in DEVICES.items() if part in told), told)


def users_mistake(error: BaseException | None) -> UserError | None:
    """The `UserError` among the causes of an error: the parser wraps what a constructor raises."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _unknown(section: str, key: str) -> str:
    *outer, last = key.replace("init_args.", "").split(".")
    for depth, part in enumerate([*outer, last]):
        if part not in known_keys():
            close = difflib.get_close_matches(part, known_keys(), n=1, cutoff=0.6)
            name = section + ".".join([*outer, last][: depth + 1])
            hint = f"did you mean {close[0]!r}?" if close else "ccd fit --help lists those there are."
            return f"There is no option {name!r}; {hint}"
    return f"There is no option {section + key!r} in this place; ccd fit --help tells where it belongs."


def _no_class(key: str, name: str) -> str:
    """The sentence for a name that is no class, or the path of a file with a part of a config that is not there."""
    if Path(name).suffix in (".yaml", ".yml", ".json"):
        return (
            f"{key}: there is no file {name}; its path is relative to the config that names it. --print_config writes a"
            " config that needs no other file."
        )
    close = difflib.get_close_matches(name, [known.__name__ for known in OWN], n=1, cutoff=0.6)
    hint = (
        f"did you mean {close[0]}?" if close else "give the import path of a class of your own: package.module.Class."
    )
    return f"{key}: there is no class {name}; {hint}"


def known_keys() -> list[str]:
    """The names of all options of the project's classes and of the Trainer."""
    classes = (*OWN, Trainer)
    names = {name for known in classes for name in inspect.signature(known).parameters}
    nested = {field.name for group in (TrainedEncoderConfig, Training, WindowScale) for field in fields(group)}
    return sorted(names.union(SECTIONS, nested) - {"kwargs"})


def _cause(section: str, message: str) -> str:
    """The first cause under the types that were tried, else the message, without the parser's own words."""
    bullets = re.split(r"\n\s*- ", message.split("Errors:", 1)[1]) if "Errors:" in message else ["", message]
    leaf = next((bullet for bullet in bullets[1:] if not bullet.rstrip().endswith("Errors:")), bullets[1])
    text = re.sub(r"\s+", " ", leaf.split("Given value type")[0]).strip()
    if inner := re.search(r"Parser key \"([\w.]+)\": (?!.*Parser key)", text):
        key = inner[1] if section.startswith(inner[1]) else section + inner[1]
        text = f"{key}: {text[inner.end() :]}"
    elif section:
        text = f"{section.rstrip('.')}: {text}"
    text = re.sub(r"Expected an? typing\.Literal\[(.*?)\]", r"Expected one of \1", text)
    return re.sub(r"Expected an? <class '([\w.]+)'>", r"Expected \1", text)
