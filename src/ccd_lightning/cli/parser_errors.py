"""Conversion of the argument parser's errors to one clear sentence."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer

from ccd_lightning.cli.known_classes import OWN
from ccd_lightning.cli.own_code import causes, describe_class, raised_in_own_code
from ccd_lightning.cli.parser_tree import CLASS, Complaint, first_complaint
from ccd_lightning.cli.synonyms import usual_option
from ccd_lightning.data.tiles import Tiles
from ccd_lightning.encoder_config import TrainedEncoderConfig
from ccd_lightning.errors import UserError
from ccd_lightning.models.igd.settings import Scale, Training, WindowScale
from ccd_lightning.models.patch_features import FeatureConfig
from ccd_lightning.modules.pmsacl import Centring
from ccd_lightning.runs import FIRST
from ccd_lightning.similar import did_you_mean, similar
from ccd_lightning.transforms.pretext import PretextViews

UNKNOWN = (
    r"Option '(?P<key>[\w.]+)' is not accepted",
    r"Group '(?P<group>[\w.]+)' does not accept option '(?P<key>[\w.]+)'",
    r"does not accept option '(?P<key>[\w.]+)'",
    r"unrecognized arguments: --(?P<key>[\w.-]+)",
    r"Key '(?P<key>[\w.]+)' is not expected",
    r"Expected 'builtins.dict' to be a class.*NestedArg\(key='(?P<key>[\w.]+)'",  # options if no class is named
)
MISSING = r"(?:Option|Key|key) [\"'](?P<key>[\w.]+)[\"'] is required|arguments are required: (?:fit\.)?(?P<first>\w+)"
NO_CLASS = (  # x.yaml is parsed as the class yaml of a module x, a/x.yaml not as an import path
    r"Expected a dot import path string(?:: (?P<text>\S+))?|Unexpected import path format|No module named"
    r"|Problem with given class_path|module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'"
    r"|does not correspond to a subclass of (?P<base>\w+)"
)
OUT_OF_RANGE = (
    r"(?:^|- |: )((?:model|data|trainer)\.[\w.]+ is .+?, but must be .+?\.)$"  # one of this package's own messages
)
KINDS = {  # expected values of options with several types, which the parser would list one by one
    "data.size": "a number of pixels, or '[HEIGHT, WIDTH]'",
    "data.crop": "'[LEFT, TOP, RIGHT, BOTTOM]' as fractions, auto, or null",
    "data.tiles": "a number, '{side: PIXELS, overlap: PIXELS, top: SHARE}', or null",
    "data.check_leaks": "true, false or files",
    "data.window": "'[LOW, HIGH]', 'percentile [LOW, HIGH]', full, stored, stored:NAME, or null",
    "seed_everything": f"a whole number from 0 to {2**32 - 1}",
    "trainer.max_time": "a time such as 00:12:00:00 (days, hours, minutes, seconds)",
}
DEVICES = {  # Lightning's messages about devices, and what to do
    "Timer(duration=": f"trainer.max_time must be {KINDS['trainer.max_time']}.",
    "torch_xla": "trainer.accelerator is tpu, which needs torch_xla. Give --trainer.accelerator cpu or gpu.",
    "No supported gpu backend": "trainer.accelerator is gpu, but PyTorch finds none here: give"
    " --trainer.accelerator cpu --trainer.precision 32-true, or install PyTorch for this machine's driver.",
    "But your machine only has": "trainer.devices: {text}. Ask for fewer with --trainer.devices.",
}
CONFIG_SUFFIXES = (".yaml", ".yml", ".json")
PACKAGES = ("ccd_lightning", "lightning", "torch", "torchvision")  # whose class names are compared with what exists
TRAINER = tuple(name for name in inspect.signature(Trainer).parameters if name != "self")
GROUPS: dict[str, Any] = {
    "encoder": TrainedEncoderConfig,
    "local_encoder": TrainedEncoderConfig,
    "features": FeatureConfig,
    "global_scale": Scale,
    "local_scale": WindowScale,
    "training": Training,
    "centring": Centring,
    "tiles": Tiles,
}
SECTIONS = ("seed_everything", "trainer", "model", "data", "optimizer", "lr_scheduler", "ckpt_path", "images")


def explain(message: str, error: BaseException | None = None, argv: Sequence[str] = ()) -> str:
    """Returns an error message that names the invalid key and the fix.

    Args:
        message: Message of the parser, which nests the cause under every type that was tried.
        error: The underlying error. If a `UserError` is among its causes, its message is used.
        argv: The command line.

    Returns:
        One or two sentences.
    """
    if user_error := users_mistake(error):
        return str(user_error)
    if problem := _of_own_class(message, error):
        return problem
    if own := re.search(OUT_OF_RANGE, message, re.MULTILINE):
        return own[1]
    if found := re.match(r"argument (--[\w.]+): expected one argument", message):
        return f"{_without_value(argv, found[1])} has no value. Give one, or leave the option out."
    complaint = first_complaint(message)
    outer = re.match(r"Parser key \"([\w.]+)\":", message)
    section = f"{outer.group(1)}." if outer else ""
    for pattern in UNKNOWN:
        if found := re.search(pattern, message, re.DOTALL):
            group = f"{found['group']}." if "group" in found.groupdict() else ""
            if complaint and found[0] in complaint.leaves:
                return _unknown(f"{complaint.key}.{group}", found["key"])
            nested = re.findall(rf"NestedArg\(key='([\w.]+\.{found['key']})'", message)
            return _unknown(section + group, max(nested, key=len, default=found["key"]))
    if found := re.search(MISSING, message):
        key = section + (found["key"] or found["first"]).removeprefix("init_args.")
        if key in ("model", "data"):
            return f"There is no {key}. Give a config, such as: {FIRST}"
        return f"{key} is missing: give it with --{key} VALUE, or in the config."
    if found := re.match(r"unrecognized arguments: (.*)", message):
        return f"{found[1]}: no option. Options begin with --, and ccd fit --help lists them."
    if not complaint:
        return _one_line(message)
    if no_class := next((one for leaf in complaint.leaves if (one := re.search(NO_CLASS, leaf))), None):
        return _no_class(complaint, no_class)
    return _of_type(complaint)


def explain_trainer(message: str) -> str:
    """Explains Lightning's error about an invalid trainer, and adds a fix if it gives none."""
    text = " ".join(message.split())
    if sentence := next((sentence for part, sentence in DEVICES.items() if part in text), None):
        return sentence.format(text=text)
    names = sorted((found.start(), name) for name in TRAINER if (found := re.search(rf"\b{name}\b", text)))
    option = f"trainer.{names[0][1]}" if names else "trainer"
    first = re.split(r"(?<=[.!]) (?=[A-Z])", text)[0].rstrip(".")
    return f"{option}: {first}. Give --{option} another value, or leave it out."


def users_mistake(error: BaseException | None) -> UserError | None:
    """Returns the `UserError` among the causes of an error, as the parser wraps what a constructor raises."""
    return next((cause for cause in causes(error) if isinstance(cause, UserError)), None)


def _unknown(section: str, key: str) -> str:
    *outer, last = (section + key).replace("init_args.", "").split(".")
    for depth, part in enumerate([*outer, last]):
        known = names_in(outer[depth - 1] if depth else "")
        if part not in known:
            close = _meant(outer[:depth], part, known)
            close = close or similar(part, known)
            close = close or [name for name in known if name.startswith(f"{part}_")][:1]
            hint = did_you_mean([repr(close[0])] if close else [], "ccd fit --help lists the options.")
            return f"There is no option {'.'.join([*outer, last][: depth + 1])!r}; {hint}"
    return f"There is no option {section + key!r} here; ccd fit --help shows where it belongs."


def _meant(outer: Sequence[str], part: str, known: Sequence[str]) -> list[str]:
    """Returns the option that has another name in other programs, or that belongs to another group; empty if none.

    Args:
        outer: Keys of the groups that contain the option, as given.
        part: The option's own key, which is not known in this group.
        known: Names of the group's options.
    """
    if usual := usual_option(part):
        last = usual.rpartition(".")[2]
        return [".".join([*outer, last]) if last in known else usual]
    groups = [group for group in ("data", "trainer", "model") if not outer and part in names_in(group)]
    return [f"{group}.{part}" for group in groups[:1]]


def _without_value(argv: Sequence[str], option: str) -> str:
    """Returns the option without a value. The parser names only its group."""
    following = zip(argv, [*argv[1:], "--"], strict=True)
    found = (arg for arg, after in following if arg.startswith(option) and "=" not in arg and after[:2] == "--")
    return next(found, option)


def _no_class(complaint: Complaint, found: re.Match[str]) -> str:
    """Returns the message for a name that is not a class, or for a config file that does not exist."""
    key, base = complaint.key, found["base"]
    name = f"{found['module']}.{found['name']}" if found["module"] else found["text"] or complaint.value
    if not name:
        return f"{key} is empty. Give the name of a class, or leave the option out."
    if Path(name).suffix in CONFIG_SUFFIXES:
        return (
            f"{key}: there is no file {name}; its path is relative to the config that names it. --print_config writes a"
            " config that needs no other file."
        )
    choices = [known.__name__ for known in choices_of(key)]
    close = similar(name, choices or [known.__name__ for known in OWN])
    what = f"{name} is no {base}" if base else f"there is no class {name}"
    own = "the import path of a class of your own: package.module.Class."
    hint = f"give one of {', '.join(choices)}, or {own}" if choices else f"give {own}"
    return f"{key}: {what}; {did_you_mean(close, hint)}"


def choices_of(key: str) -> list[type]:
    """Returns the classes that are usually given for an option, by its full key. Empty for unknown options."""
    bases: dict[str, type] = {"model": LightningModule, "data": LightningDataModule, "views": PretextViews}
    last = key.rpartition(".")[2]
    if last == "optimizer":
        found = [one for one in vars(torch.optim).values() if isinstance(one, type) and issubclass(one, Optimizer)]
        return [one for one in found if one is not Optimizer]
    if last == "family":
        return [one for one in OWN if issubclass(one, nn.Module) and not issubclass(one, LightningModule)]
    return [one for one in OWN if last in bases and issubclass(one, bases[last])]


def names_in(group: str) -> list[str]:
    """Returns the option names in a group, by the last part of its key; "" is the top level.

    For unknown groups, these are all names of the project's classes and of the Trainer.
    """
    if group in ("", "trainer"):
        return sorted(SECTIONS if not group else TRAINER)
    if group in GROUPS:
        return sorted(field.name for field in fields(GROUPS[group]))
    classes = choices_of(group) if group != "optimizer" else []
    found = {name for one in classes or OWN for base in one.__mro__ for name in inspect.signature(base).parameters}
    extra = set() if classes else {*SECTIONS, *TRAINER, *(one.name for own in GROUPS.values() for one in fields(own))}
    return sorted((found | extra) - {"args", "kwargs", "options"})


def _of_type(complaint: Complaint) -> str:
    """Returns the message for a value of the wrong type, or the parser's own message if the type is not the problem."""
    kinds = complaint.kinds
    if complaint.key in KINDS:
        only_a_number = complaint.key == "data.size" and kinds == ["a whole number"]  # such as for synthetic images
        kinds = ["one number of pixels" if only_a_number else KINDS[complaint.key]]
    if kinds:
        return f"{complaint.key} is {complaint.value}, but must be {' or '.join(kinds)}."
    return f"{complaint.key}: {_one_line(complaint.leaves[-1])}"


def _of_own_class(message: str, error: BaseException | None) -> str:
    """Returns the message for a class of the user's own that cannot be imported or constructed, or an empty one."""
    complaint = first_complaint(message)
    named = re.search(r"class_path['\"]?[=:] ?['\"]([\w.]+)", (complaint.value if complaint else "") or message)
    name = named[1] if named else complaint.value if complaint else ""
    if complaint and complaint.kinds and CLASS not in complaint.kinds:
        return ""  # an option of numbers or text
    if name.partition(".")[0] in PACKAGES or Path(name).suffix in CONFIG_SUFFIXES:
        return ""
    key = complaint.key.removesuffix(".class_path") if complaint else ""
    if reason := describe_class(name, nn.Module if "model" in key else object):
        return f"{key}: {reason}." if key else f"{reason}."
    if reason := raised_in_own_code(error):
        return f"{name} cannot be constructed: {reason}. Correct it; --debug shows the traceback."
    return ""


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
