"""`ccd fit`, `validate`, `test` and `predict`: LightningCLI that manages runs."""

from __future__ import annotations

import logging
import tempfile
import warnings
from itertools import pairwise
from pathlib import Path

from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException

from ccd_lightning import runs
from ccd_lightning.callbacks.prediction_file import PredictionFile
from ccd_lightning.callbacks.predictions import ImagePredictions
from ccd_lightning.cli.callbacks import command_callbacks
from ccd_lightning.cli.config_files import default_logger, find_configs
from ccd_lightning.cli.failures import naming_failures
from ccd_lightning.cli.lightning_cli import CLI
from ccd_lightning.cli.parser_errors import explain, explain_trainer, users_mistake
from ccd_lightning.cli.plain_warnings import use_plain_warnings
from ccd_lightning.cli.predicting import PREDICT_HELP, ImagesRequest, take_images
from ccd_lightning.cli.resume import misfit, resolve
from ccd_lightning.cli.saved_config import KeepConfig
from ccd_lightning.cli.trust import OPTION
from ccd_lightning.errors import UserError

PARSER = {"exit_on_error": False}
LINKED = {"--data.seed": "--seed_everything", "--data.init_args.seed": "--seed_everything"}  # set by other options
SKIPPED = 3  # exit code if a prediction skipped images


def run_training(argv: list[str]) -> int:
    """Runs one of Lightning's commands.

    Args:
        argv: The command and its options.

    Returns:
        The exit code: 3 if a prediction skipped images.

    Raises:
        UserError: For an error in an option, a config or the data.
    """
    _quieten()
    trust, argv = OPTION in argv, [arg for arg in argv if arg != OPTION]
    if trust and argv[0] == "fit":
        raise UserError(f"{OPTION} is for commands that take their config from a checkpoint. Leave it out of ccd fit.")
    images = None
    if argv[0] == "predict" and {"-h", "--help"} & set(argv):
        print(PREDICT_HELP)
    elif argv[0] == "predict":
        images, argv = take_images(argv)
    if linked := next((arg for arg in argv if arg.partition("=")[0] in LINKED), None):
        option = linked.partition("=")[0]
        raise UserError(f"{option} is set by {LINKED[option]}: give that one instead.")
    with tempfile.TemporaryDirectory() as folder:
        argv = _epochs_before_steps(find_configs(argv))
        argv = resolve(argv, Path(folder), trust, bool(images))
        _refuse_bytes(argv)
        try:
            with naming_failures(_place(argv)):
                return _run_cli(argv, images)
        except ArgumentError as error:
            raise UserError(explain(str(error), error, argv)) from error
        except MisconfigurationException as error:
            raise UserError(explain_trainer(str(error))) from error
        except RuntimeError as error:
            if user_error := misfit(error, argv):
                raise user_error from error
            raise
        except ValueError as error:
            if (user_error := users_mistake(error)) or "Does not validate against" in str(error):
                raise user_error or UserError(explain(str(error), error, argv)) from error
            raise


def _refuse_bytes(argv: list[str]) -> None:
    """Raises an error for arguments that are not UTF-8, because configs contain them. Image names need not be UTF-8."""
    for arg in argv:
        try:
            arg.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{arg}: this name is not in UTF-8, in which configs are written. Rename the file or folder."
            ) from error


def _place(argv: list[str]) -> Path | None:
    """Returns the folder of the run to which a command other than a fit writes. A fit determines its own."""
    if argv[0] == "fit" or "--ckpt_path" not in argv[:-1]:
        return None
    return runs.run_folder(Path(argv[argv.index("--ckpt_path") + 1]))


def _epochs_before_steps(argv: list[str]) -> list[str]:
    """Makes a number of epochs on the command line override a config's number of steps, which also ends fits."""
    given = {arg.split("=")[0] for arg in argv}
    endless = "--trainer.max_epochs=-1" in argv or ["--trainer.max_epochs", "-1"] in map(list, pairwise(argv))
    if argv[0] != "fit" or "--trainer.max_epochs" not in given or "--trainer.max_steps" in given or endless:
        return argv
    return [*argv, "--trainer.max_steps=-1"]


def _run_cli(argv: list[str], images: ImagesRequest | None) -> int:
    run = Path()
    if argv[0] == "predict" and not {"-h", "--help"} & set(argv):
        run = runs.run_folder(Path(argv[argv.index("--ckpt_path") + 1]))
        argv = [*argv, "--trainer.logger", "false"]  # there is nothing to log, and the run may belong to someone else
    writer: PredictionFile | ImagePredictions = PredictionFile(run)
    if images:
        writer = ImagePredictions(run, images.output, images.maps, images.overlays)
    cli = CLI(
        images.paths if images else None,
        writer,
        save_config_callback=KeepConfig,
        trainer_defaults={
            "callbacks": command_callbacks(argv[0], writer),
            "logger": default_logger(argv),
            "num_sanity_val_steps": 0,  # there is nothing to check: PaDiM cannot score before it is fitted
            "use_distributed_sampler": False,  # DistributedBatchSampler handles ranks
            "enable_model_summary": False,
            "log_every_n_steps": None,  # depends on the number of steps
        },
        seed_everything_default=0,
        parser_kwargs=PARSER | dict.fromkeys(CLI.subcommands(), PARSER),
        subclass_mode_model=True,
        subclass_mode_data=True,
        args=argv,
    )
    # On other ranks, any code but 0 would make Lightning kill the first rank.
    skipped = isinstance(writer, ImagePredictions) and writer.tally.skipped and cli.trainer.is_global_zero
    _release(cli)
    return SKIPPED if skipped else 0


def _release(cli: CLI) -> None:
    """Frees weights and images immediately, as Lightning's parts reference each other until garbage collection."""
    for part in (cli.trainer, cli.model, cli.datamodule, cli):
        vars(part).clear()


def _quieten() -> None:
    """Hides Lightning's messages about itself, but not those about the run."""
    use_plain_warnings()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*returned `None`, this fit will run with no optimizer.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*dirpath has changed.*",  # happens if a checkpoint is tested in another folder
        ".*dataloader is not resumable.*",  # the data module stores the position
        ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
        ".*module.s. in eval mode at the start of training.*",  # frozen encoders
        ".*using a custom batch sampler.*",  # ours returns every index
        ".*Couldn't infer the batch indices.*",  # predictions are written by path
        ".*recommended to use `self.log.*sync_dist=True.*",  # logged values are already reduced, all at once
    ):
        warnings.filterwarnings("ignore", message=message)
