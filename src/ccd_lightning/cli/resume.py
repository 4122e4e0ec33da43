"""Conversion of `--ckpt_path RUN` to the arguments of a command."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_only

from ccd_lightning import runs
from ccd_lightning.checkpoints import CONFIG_KEY, model_of, network_of, read_checkpoint
from ccd_lightning.cli.relocation import ORIGIN_KEY, relocate
from ccd_lightning.cli.trust import embedded_config, refuse_generation
from ccd_lightning.commands import expand
from ccd_lightning.encoder_config import AUTO, RANDOM, recorded_sources
from ccd_lightning.errors import UserError
from ccd_lightning.models import encoder
from ccd_lightning.models.networks import architecture
from ccd_lightning.renamed import current_modules
from ccd_lightning.writing import naming, short_text

MACHINE = ("accelerator", "strategy", "devices", "num_nodes")  # a run may be tested on another machine
LOGGER = {"--trainer.logger", "--trainer.logger.init_args.version", "--trainer.logger.version"}
LINKS = ("hparams.yaml", "figures", "predictions")  # written in place, never through a link
STATE: dict[str, Any] = {  # entries needed to resume a run, with their types
    **{"epoch": int, "global_step": int, "loops": dict, "optimizer_states": list, "lr_schedulers": list},
}
KEYWORDS = ("last", "best", "hpc", "registry")  # Lightning's keywords for --ckpt_path


def resolve(argv: list[str], folder: Path, trust: bool = False, images: bool = False) -> list[str]:
    """Replaces a run by its checkpoint file, and adds the config stored in the checkpoint.

    Args:
        argv: One of Lightning's commands and its options.
        folder: Folder to which the config may be written.
        trust: Whether that config may name any class.
        images: Whether given images are scored, so that the run's data set is not read.

    Raises:
        UserError: If there is no such run, it is ambiguous which run is meant, or its config is not trusted.
    """
    command, *options = argv = _without_digests(argv)
    given = {arg.split("=")[0] for arg in options}
    if given & {"-h", "--help"}:
        return argv
    path, rest = _take_option(options, "--ckpt_path")
    if path == "":
        raise UserError("--ckpt_path is empty. Give a run's folder or a checkpoint, or leave the option out.")
    if command == "fit" or given & {"-c", "--config"}:
        if path in (None, "", "null", *KEYWORDS):
            if command == "fit":
                return argv
            raise UserError(f"Which run? Give --ckpt_path RUN; ccd {command} without --config takes the newest one.")
        checkpoint = runs.find_checkpoint(Path(path), "last.ckpt" if command == "fit" else "best.ckpt")
        if command != "fit":  # fit reads it later
            read_checkpoint(checkpoint)  # so that a damaged file is reported
        goes_on = command == "fit" and not given & LOGGER
        return [command, *rest, *(_same_folder(checkpoint) if goes_on else ()), "--ckpt_path", str(checkpoint)]
    checkpoint = runs.find_checkpoint(Path(path) if path else runs.newest_run())
    rank_zero_only(print)(f"{command}: {os.path.relpath(checkpoint)}")
    config = _write_config(checkpoint, folder, given, trust, images)
    return [command, "--config", str(config), "--ckpt_path", str(checkpoint), *rest]


def resume_last(config: Namespace) -> None:
    """Replaces `--ckpt_path last` by the newest run with this name. If it has no checkpoint, a new run is started.

    Args:
        config: Config of a fit. Its checkpoint and its logger's version are set.

    Raises:
        UserError: If the config names no folder to search.
    """
    logger = config["trainer"]["logger"]
    init_args = logger.get("init_args") if isinstance(logger, Namespace) else None
    if not init_args or not init_args.get("save_dir"):
        raise UserError("--ckpt_path last looks where trainer.logger writes, which is nowhere. Give --ckpt_path RUN.")
    folder = expand(init_args["save_dir"]) / (init_args.get("name") or "")
    run = runs.newest_version(folder)
    checkpoint = run and runs.checkpoint_of(run, "last.ckpt")
    config["ckpt_path"] = str(checkpoint) if checkpoint else None
    if run and checkpoint:
        init_args["version"] = run.name
        rank_zero_only(print)(f"fit: resuming from {os.path.relpath(checkpoint)}")
    else:
        rank_zero_only(print)(f"fit: no checkpoint in {folder}, starting a new run")


def keep_networks(arguments: Namespace, file: Path) -> None:
    """Sets a model's encoders to the networks in a checkpoint, wherever their weights came from.

    Args:
        arguments: Arguments of the model. The names of its encoders are set, and the weights that "auto" found in its
            run.
        file: Path of the checkpoint, which may not exist.

    Raises:
        UserError: If another network is requested.
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
    """Returns options that resume an interrupted run in its own folder, where its best checkpoint is known."""
    if checkpoint.parent.name != runs.CHECKPOINTS:
        return []
    return ["--trainer.logger.init_args.version", runs.run_folder(checkpoint).resolve().name]


def _write_config(checkpoint: Path, folder: Path, given: set[str], trust: bool, images: bool) -> Path:
    content = read_checkpoint(checkpoint)
    if CONFIG_KEY not in content:
        raise UserError(f"{checkpoint}: it holds no config, so it was not written by ccd fit. Give one with --config.")
    config = embedded_config(content[CONFIG_KEY], checkpoint, trust, images)
    config = {key: value for key, value in config.items() if key not in ("ckpt_path", "weights_only")}
    origin = content.get(ORIGIN_KEY)
    relocate(config, runs.run_folder(checkpoint), origin if isinstance(origin, str) else None, given)
    if not (trust or "--data.root" in given):
        refuse_generation(config["data"], checkpoint)
    for name in LINKS:  # in a run from someone else, they could lead anywhere
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


def misfit(error: RuntimeError, argv: list[str]) -> UserError | None:
    """Returns the error message if a checkpoint's tensors do not fit the model, or None for any other error.

    Args:
        error: The error raised by torch.
        argv: The command, with the path of the checkpoint.
    """
    if "Error(s) in loading state_dict" not in str(error):
        return None
    path, _ = _take_option(argv[1:], "--ckpt_path")
    reason = short_text(str(error).partition("\n")[2], 150).rstrip(". ")
    return UserError(
        f"{path}: its tensors do not fit the model ({reason}). Give the options of its fit, or fit it again."
    )


def check_class(given: str, checkpoint: dict[str, Any], file: Path, required: bool = False) -> None:
    """Checks that a checkpoint is of the model that a command uses.

    Args:
        given: Import path of the model's class.
        checkpoint: Content of the checkpoint.
        file: Its path, used in the message.
        required: Whether the checkpoint has to say of which class it is.

    Raises:
        UserError: If it is of another class.
    """
    kept = model_of(checkpoint)
    if (kept or required) and current_modules(kept) != given:
        raise UserError(
            f"{file}: the checkpoint is of {kept or 'no model'}, but model is {given}. Give the --model or the config"
            " of its own run, or another --ckpt_path."
        )


def check_complete(checkpoint: dict[str, Any], path: Path) -> None:
    """Raises an error if a checkpoint contains only weights, or invalid entries, so that it cannot be resumed.

    Raises:
        UserError: If an entry that Lightning needs for resuming is missing.
    """
    for name, kind in STATE.items():
        if not isinstance(checkpoint.get(name), kind):
            raise UserError(
                f"{path}: it holds no {name}, without which training cannot be resumed. Leave --ckpt_path out, or start"
                f" from its weights with --model.encoder.weights {quote(str(path))}."
            )


def _without_digests(argv: list[str]) -> list[str]:
    """Clears the digest of the run's config if an encoder's weights are given on the command line."""
    given = {arg.split("=")[0] for arg in argv}
    named = [f"--model.{name}" for name in ("encoder", "local_encoder")]
    freed = [name for name in named if f"{name}.weights" in given and f"{name}.digest" not in given]
    return [*argv, *(f"{name}.digest=null" for name in freed)]


def _take_option(argv: list[str], name: str) -> tuple[str | None, list[str]]:
    for index, arg in enumerate(argv):
        if arg == name:
            if argv[index + 1 : index + 2] in ([], *([one] for one in argv if one.startswith("--"))):
                raise UserError(f"{name} has no value. Give a run's folder or a checkpoint, or leave the option out.")
            return argv[index + 1], argv[:index] + argv[index + 2 :]
        if arg.startswith(f"{name}="):
            return arg.split("=", 1)[1], argv[:index] + argv[index + 1 :]
    return None, argv
