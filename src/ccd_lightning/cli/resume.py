"""From a run to the words of a command: `--ckpt_path RUN` is enough."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_only

from ccd_lightning import runs
from ccd_lightning.checkpoints import CONFIG_KEY, network_of, read_checkpoint
from ccd_lightning.cli.relocation import ORIGIN_KEY, relocate
from ccd_lightning.cli.trust import embedded_config, refuse_to_make
from ccd_lightning.commands import expand
from ccd_lightning.encoder_config import AUTO, RANDOM, recorded_sources
from ccd_lightning.errors import UserError
from ccd_lightning.models import encoder
from ccd_lightning.models.networks import architecture
from ccd_lightning.writing import naming, short_text

MACHINE = ("accelerator", "strategy", "devices", "num_nodes")  # a run may be tested on another machine
LOGGER = {"--trainer.logger", "--trainer.logger.init_args.version", "--trainer.logger.version"}
LINKS = ("hparams.yaml", "figures", "predictions")  # written in place, never through a link
STATE: dict[str, Any] = {  # what a run is resumed from, and what it has to be
    **{"epoch": int, "global_step": int, "loops": dict, "optimizer_states": list, "lr_schedulers": list},
}
KEYWORDS = ("last", "best", "hpc", "registry")  # of Lightning, for --ckpt_path


def resolve(words: list[str], folder: Path, trust: bool = False) -> list[str]:
    """Puts a checkpoint file in the place of a run, and adds the config that the checkpoint carries.

    Args:
        words: A command of Lightning and its options.
        folder: Where the config may be written to.
        trust: Whether that config may name any class.

    Raises:
        UserError: If there is no such run, it cannot be told which one is meant, or its config is not to be trusted.
    """
    command, *options = words = _without_digests(words)
    given = {word.split("=")[0] for word in options}
    if given & {"-h", "--help"}:
        return words
    path, rest = _take_option(options, "--ckpt_path")
    if path == "":
        raise UserError("--ckpt_path is empty. Give a run's folder or a checkpoint, or leave the option out.")
    if command == "fit" or given & {"-c", "--config"}:
        if path in (None, "", "null", *KEYWORDS):
            if command == "fit":
                return words
            raise UserError(f"Which run? Give --ckpt_path RUN; ccd {command} without --config takes the newest one.")
        checkpoint = runs.find_checkpoint(Path(path), "last.ckpt" if command == "fit" else "best.ckpt")
        if command != "fit":  # which looks into it itself
            read_checkpoint(checkpoint)  # so that a damaged file is told
        goes_on = command == "fit" and not given & LOGGER
        return [command, *rest, *(_same_folder(checkpoint) if goes_on else ()), "--ckpt_path", str(checkpoint)]
    checkpoint = runs.find_checkpoint(Path(path) if path else runs.newest_run())
    rank_zero_only(print)(f"{command}: {os.path.relpath(checkpoint)}")
    config = _write_config(checkpoint, folder, trust, given)
    return [command, "--config", str(config), "--ckpt_path", str(checkpoint), *rest]


def go_on_with_last(config: Namespace) -> None:
    """Puts the newest run of this name in the place of `--ckpt_path last`; if that saved nothing, a new one begins.

    Args:
        config: Of a fit; its checkpoint and its logger's version are set.

    Raises:
        UserError: If the config names no folder to look in.
    """
    logger = config["trainer"]["logger"]
    place = logger.get("init_args") if isinstance(logger, Namespace) else None
    if not place or not place.get("save_dir"):
        raise UserError("--ckpt_path last looks where trainer.logger writes, which is nowhere. Give --ckpt_path RUN.")
    folder = expand(place["save_dir"]) / (place.get("name") or "")
    run = runs.newest_version(folder)
    checkpoint = run and runs.checkpoint_of(run, "last.ckpt")
    config["ckpt_path"] = str(checkpoint) if checkpoint else None
    if run and checkpoint:
        place["version"] = run.name
        rank_zero_only(print)(f"fit: resuming from {os.path.relpath(checkpoint)}")
    else:
        rank_zero_only(print)(f"fit: no checkpoint in {folder}, starting a new run")


def keep_networks(arguments: Namespace, file: Path) -> None:
    """Has a model's encoders be the networks that a checkpoint is of, whatever their weights were taken from.

    Args:
        arguments: Of the model; the names of its encoders are set, and the weights that its run found by "auto".
        file: The checkpoint, if it is there.

    Raises:
        UserError: If another network is asked for.
    """
    options = [option for option in ("encoder", "local_encoder") if arguments.get(option)]
    if not options or not file.is_file():
        return
    checkpoint = read_checkpoint(file)
    recorded = recorded_sources(checkpoint)
    for option in options:
        asked, kept = arguments[option].get("name"), network_of(checkpoint, option)
        if kept and asked and architecture(asked) != architecture(kept):
            raise UserError(
                f"{file}: its {option} is {kept}, but model.{option}.name is {asked}. Leave the name out, or give"
                f" --model.{option}.name {kept}."
            )
        arguments[option]["name"] = kept or asked or encoder.DEFAULT
        if arguments[option].get("weights") == AUTO and (source := recorded.get(option)):
            arguments[option]["weights"] = None if source.weights == RANDOM else source.weights


def _same_folder(checkpoint: Path) -> list[str]:
    """What makes an interrupted run go on in its own folder, where its best checkpoint is known."""
    if checkpoint.parent.name != runs.CHECKPOINTS:
        return []
    return ["--trainer.logger.init_args.version", runs.run_folder(checkpoint).resolve().name]


def _write_config(checkpoint: Path, folder: Path, trust: bool, given: set[str]) -> Path:
    content = read_checkpoint(checkpoint)
    if CONFIG_KEY not in content:
        raise UserError(f"{checkpoint}: it holds no config, so it was not written by ccd fit. Give one with --config.")
    config = embedded_config(content[CONFIG_KEY], checkpoint, trust)
    config = {key: value for key, value in config.items() if key not in ("ckpt_path", "weights_only")}
    origin = content.get(ORIGIN_KEY)
    relocate(config, runs.run_folder(checkpoint), origin if isinstance(origin, str) else None, given)
    if not (trust or "--data.root" in given):
        refuse_to_make(config["data"], checkpoint)
    for name in LINKS:  # in a run from someone else they may lead anywhere
        if (runs.run_folder(checkpoint) / name).is_symlink():
            (runs.run_folder(checkpoint) / name).unlink()
    for key in MACHINE:
        config["trainer"].pop(key, None)
    config["trainer"]["logger"] = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {
            "save_dir": str(runs.run_folder(checkpoint)),
            "name": "",
            "version": "",
            "default_hp_metric": False,
        },
    }
    file = folder / "config.yaml"
    with naming(file):
        file.write_text(yaml.safe_dump(config))
    return file


def misfit(error: RuntimeError, words: list[str]) -> UserError | None:
    """What to say where a checkpoint's tensors are not the model's; None of any other error.

    Args:
        error: As torch reports it.
        words: The command, with the checkpoint's path.
    """
    if "Error(s) in loading state_dict" not in str(error):
        return None
    path, _ = _take_option(words[1:], "--ckpt_path")
    reason = short_text(str(error).partition("\n")[2], 150).rstrip(". ")
    return UserError(
        f"{path}: its tensors do not fit the model ({reason}). Give the options of its fit, or fit it again."
    )


def check_complete(checkpoint: dict[str, Any], path: Path) -> None:
    """Refuses to resume from a checkpoint that holds weights alone, or nonsense beside them.

    Raises:
        UserError: If what Lightning goes on from is missing.
    """
    for name, kind in STATE.items():
        if not isinstance(checkpoint.get(name), kind):
            raise UserError(
                f"{path}: it holds no {name}, without which training cannot be resumed. Leave --ckpt_path out, or start"
                f" from its weights with --model.encoder.weights {quote(str(path))}."
            )


def _without_digests(words: list[str]) -> list[str]:
    """Frees an encoder that is given on the command line from the digest of the one in a run's config."""
    given = {word.split("=")[0] for word in words}
    named = [f"--model.{name}" for name in ("encoder", "local_encoder")]
    freed = [name for name in named if f"{name}.weights" in given and f"{name}.digest" not in given]
    return [*words, *(f"{name}.digest=null" for name in freed)]


def _take_option(words: list[str], name: str) -> tuple[str | None, list[str]]:
    for index, word in enumerate(words):
        if word == name:
            if words[index + 1 : index + 2] in ([], *([one] for one in words if one.startswith("--"))):
                raise UserError(f"{name} has no value. Give a run's folder or a checkpoint, or leave the option out.")
            return words[index + 1], words[:index] + words[index + 2 :]
        if word.startswith(f"{name}="):
            return word.split("=", 1)[1], words[:index] + words[index + 1 :]
    return None, words
