"""`ccd fit`, `validate`, `test` and `predict`: stock LightningCLI, with runs to remember."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import tempfile
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning_utilities.core.rank_zero import rank_zero_only

from ccd_lightning import runs
from ccd_lightning.cli.messages import explain
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.errors import UserError
from ccd_lightning.evaluation.dashboard import CollapseMonitor, PretextDashboard
from ccd_lightning.evaluation.testing import TestReport
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.modules.handover import read_checkpoint


class KeepConfig(SaveConfigCallback):
    """Writes the config into the run's folder and into every checkpoint, which thereby needs nothing beside it."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the file when fitting starts; a test belongs to a run that has one."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the config."""
        checkpoint[runs.CONFIG_KEY] = self.parser.dump(self.config, skip_none=False)


class CLI(LightningCLI):
    """LightningCLI that names runs and knows how to go on."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """One seed decides everything."""
        parser.link_arguments("seed_everything", "data.init_args.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses without the warning about words that do not come from the command line."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Leaves the config alone: that of the checkpoint is its base already, and options given now go before it."""

    def before_fit(self) -> None:
        """Validates, and thereby saves, also after the last epoch, whatever the number of epochs."""
        epochs, every = self.trainer.max_epochs, self.trainer.check_val_every_n_epoch
        if epochs and epochs > 0 and every:
            self.trainer.check_val_every_n_epoch = math.gcd(epochs, every)

    def fit(self, model: LightningModule, **kwargs: Any) -> None:
        """Fits; a mistake found before anything was learned leaves no run behind."""
        try:
            self.trainer.fit(model, **kwargs)
        except UserError:
            _discard(self.trainer)
            raise

    def after_fit(self) -> None:
        """Records that the run is finished, and says what to do next."""
        if self.trainer.log_dir is not None and not getattr(self.trainer, "fast_dev_run", 0):
            _record(self.trainer, self.model, self.config["fit"])


@rank_zero_only
def _discard(trainer: Trainer) -> None:
    run = Path(str(trainer.log_dir))
    if trainer.log_dir and run.is_dir() and not any(run.glob("**/*.ckpt")):
        for logger in trainer.loggers:
            logger.finalize("failed")
        shutil.rmtree(run)
        for parent in list(run.parents)[:2]:
            if not any(parent.iterdir()):
                parent.rmdir()


@rank_zero_only
def _record(trainer: Trainer, model: LightningModule, config: Any) -> None:
    run = Path(str(trainer.log_dir))
    record = {
        "model": f"{type(model).__module__}.{type(model).__qualname__}",
        "finished": datetime.now(UTC).isoformat(),
        "seed": config["seed_everything"],
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
    }
    (run / runs.RECORD).write_text(json.dumps(record, indent=2) + "\n")
    latest = run.parent / "latest"
    if latest.is_symlink() or not latest.exists():
        latest.unlink(missing_ok=True)
        latest.symlink_to(run.name)
    print(f"\nThe run is in {os.path.relpath(run)}\nNext: {_next_command(run, model)}")


def _next_command(run: Path, model: LightningModule) -> str:
    if isinstance(model, OneClassDetector):
        return "ccd test"
    config = Path("configs") / f"{run.parent.name.replace('ccd_', 'padim_', 1)}.yaml"
    if config.is_file():
        return f"ccd fit --config {config}"
    return f"ccd fit --config configs/padim_folder.yaml --data.root DIR --model.encoder.weights {os.path.relpath(run)}"


def run_training(words: list[str]) -> None:
    """Runs one of Lightning's commands.

    Args:
        words: The command and its options.

    Raises:
        UserError: For a mistake in an option, a config or the data.
    """
    _quieten()
    with tempfile.TemporaryDirectory() as folder:
        if words[0] != "fit" and not {"-h", "--help", "-c", "--config"} & {word.split("=")[0] for word in words}:
            words = _with_config_of_run(words, Path(folder))
        try:
            _run_cli(words)
        except ArgumentError as error:
            raise UserError(explain(str(error), error)) from error


def _run_cli(words: list[str]) -> None:
    callbacks: list[Callback] = [CollapseMonitor(), PretextDashboard(), TestReport()]
    CLI(
        LightningModule,
        AnomalyDataModule,
        save_config_callback=KeepConfig,
        trainer_defaults={
            "callbacks": callbacks,
            "num_sanity_val_steps": 0,  # there is nothing to check: PaDiM cannot score before it is fitted
            "use_distributed_sampler": False,  # ours knows ranks itself
            "enable_model_summary": False,
            "log_every_n_steps": 1,
        },
        seed_everything_default=0,
        parser_kwargs={"exit_on_error": False} | {name: {"exit_on_error": False} for name in CLI.subcommands()},
        subclass_mode_model=True,
        subclass_mode_data=True,
        args=words,
    )


def _with_config_of_run(words: list[str], folder: Path) -> list[str]:
    """Finds the run, and turns its saved config into the base of this command."""
    command, *options = words
    path, rest = _take_option(options, "--ckpt_path")
    checkpoint = runs.find_checkpoint(Path(path) if path else runs.newest_run())
    content = read_checkpoint(checkpoint)
    if runs.CONFIG_KEY not in content:
        raise UserError(f"{checkpoint}: it holds no config, so it was not written by ccd fit. Give one with --config.")
    config = yaml.safe_load(content[runs.CONFIG_KEY])
    run = runs.run_folder(checkpoint)
    print(f"{command}: {os.path.relpath(checkpoint)}")
    config = {key: value for key, value in config.items() if key not in ("ckpt_path", "weights_only")}
    config["trainer"]["logger"] = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": str(run), "name": "", "version": ""},
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    return [command, "--config", str(file), "--ckpt_path", str(checkpoint), *rest]


def _take_option(words: list[str], name: str) -> tuple[str | None, list[str]]:
    for index, word in enumerate(words):
        if word == name and index + 1 < len(words):
            return words[index + 1], words[:index] + words[index + 2 :]
        if word.startswith(f"{name}="):
            return word.split("=", 1)[1], words[:index] + words[index + 1 :]
    return None, words


def _quieten() -> None:
    """Leaves out what Lightning says about itself, but none of what it says about the run."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*returned `None`, this fit will run with no optimizer.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*`training_step` returned `None`.*",
    ):
        warnings.filterwarnings("ignore", message=message)
