"""`ccd fit`, `validate`, `test` and `predict`: stock LightningCLI, with runs to remember."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from itertools import pairwise
from pathlib import Path
from shlex import quote
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from ccd_lightning import runs
from ccd_lightning.callbacks.checkpointing import (
    AtomicCheckpointIO,
    SaveWhenTerminated,
    StopWhenBroken,
    TrainingBroken,
    ValidateLast,
)
from ccd_lightning.callbacks.collapse import CollapseMonitor, FamilyAdvice
from ccd_lightning.callbacks.dashboard import LearningRate, PretextCharts
from ccd_lightning.callbacks.pace import Pace
from ccd_lightning.callbacks.pictures import PretextPictures, ReconstructionPictures
from ccd_lightning.callbacks.prediction_file import PredictionFile
from ccd_lightning.callbacks.predictions import ImagePredictions
from ccd_lightning.callbacks.test_report import TestReport
from ccd_lightning.callbacks.throughput import Throughput
from ccd_lightning.checkpoints import (
    CONFIG_KEY,
    DIVISION_KEY,
    RANDOM,
    EncoderConfig,
    EncoderSource,
    model_of,
    read_checkpoint,
    recorded_sources,
)
from ccd_lightning.cli.continuity import check_same_steps
from ccd_lightning.cli.next_steps import class_path, record_run
from ccd_lightning.cli.parser_errors import explain, explain_trainer, users_mistake
from ccd_lightning.cli.predicting import PREDICT_HELP, ImagesRequest, take_images
from ccd_lightning.cli.relocation import ORIGIN_KEY
from ccd_lightning.cli.resume import go_on_with_last, resolve
from ccd_lightning.cli.trust import OPTION
from ccd_lightning.commands import expand
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.division import Division
from ccd_lightning.data.image_files import ImageFiles
from ccd_lightning.data.manifest import Manifest
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.errors import Terminated, UserError
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.writing import atomic_write

SKIPPED = 3  # the exit code of a prediction that had to skip images


class KeepConfig(SaveConfigCallback):
    """Writes the config into the run's folder and into every checkpoint, which thereby needs nothing beside it.

    The split, which may have been drawn, is written into the folder too.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the file when fitting starts; a test belongs to a run that has one."""
        if stage != "fit" or not trainer.loggers:
            return
        folder = self.folder = Path(str(trainer.log_dir))  # on every rank: Lightning broadcasts it
        path = self.config.get("ckpt_path")  # an interrupted run is resumed in its own folder, and in no other's
        self.overwrite = bool(path) and runs.run_folder(Path(path)).resolve() == folder.resolve()
        if (folder / self.config_filename).exists() and not self.overwrite:
            raise UserError(
                f"{folder}: another run is here already. Give --trainer.logger.init_args.version another name."
            )
        self.config = self._with_range(trainer)
        self.config["ckpt_path"] = None  # the config says what the run is, not where it was last taken up
        self.save_to_log_dir = False  # Lightning writes there in place
        super().setup(trainer, pl_module, stage)
        split: Manifest | None = trainer.datamodule.split  # type: ignore[attr-defined]
        if split and trainer.is_global_zero:
            _keep_split(split, folder / runs.MANIFEST)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the config, on the first rank."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder / self.config_filename) as partial:
            partial.write_text(self.parser.dump(self.config, skip_none=False), encoding="utf-8")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the config, the folder that its relative paths refer to, and which images were held out."""
        checkpoint[CONFIG_KEY] = self.parser.dump(self._with_range(trainer), skip_none=False)
        checkpoint[ORIGIN_KEY] = os.getcwd()
        division: Division | None = getattr(trainer.datamodule, "division", None)  # type: ignore[attr-defined]
        if division:
            checkpoint[DIVISION_KEY] = division.state()

    def _with_range(self, trainer: Trainer) -> Namespace:
        """The config with the range of grey values that was found in the training images, for test and predict."""
        config = self.config.clone()
        preprocessing: Preprocessing | None = getattr(trainer.datamodule, "preprocessing", None)  # type: ignore[attr-defined]
        if preprocessing and preprocessing.range and "data.init_args.range" in config:
            config["data.init_args.range"] = preprocessing.range
        return config


def _keep_split(split: Manifest, file: Path) -> None:
    """Writes the split, or sees that a resumed run has the one that it began with."""
    _check_split(split, file)
    split.write(file)


def _check_split(split: Manifest, file: Path) -> None:
    """Refuses another split than the one in a run's folder, if there is one."""
    if file.is_file():
        old = Manifest.read(file, split.root)
        before, now = ({(row.path, row.split) for row in one.rows} for one in (old, split))
        if changed := {path for path, _ in before ^ now}:
            raise UserError(
                f"{file}: {len(changed)} images have come, gone or changed sides since the run began. Put them back, or"
                f" begin a new run, with --data.layout {quote(str(file))} for the old split."
            )
        groups, now_groups = ({row.path: row.group for row in one.select("train")} for one in (old, split))
        if groups != now_groups:
            raise UserError(
                f"{file}: images are not grouped by patient or video as they were when the run began. Resume it with"
                f" --data.layout {quote(str(file))}."
            )


class CLI(LightningCLI):
    """LightningCLI that names runs and knows how to go on.

    Args:
        paths: The images that `predict` is to see instead of the run's test images, if any.
        writer: The callback that writes what is predicted.
        options: Those of LightningCLI.
    """

    def __init__(self, paths: list[str] | None, writer: PredictionFile | ImagePredictions, **options: Any) -> None:
        self.paths, self.writer = paths, writer
        self.sources: dict[str, EncoderSource] = {}  # of the encoders, by the model's options
        super().__init__(LightningModule, AnomalyDataModule, **options)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """One seed decides everything."""
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=_seed)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses without the warning about words that do not come from the command line."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Leaves the config alone: that of the checkpoint is its base already, and options given now go before it."""

    def before_fit(self) -> None:
        """Reads data, encoder and checkpoint, so that a mistake in them is told before anything is written."""
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # not one of the user's
            self.trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        self.datamodule.trainer = self.trainer  # which knows of other ranks
        if self.config["fit"]["trainer"]["log_every_n_steps"] is None:
            self.trainer.log_every_n_steps = 1  # type: ignore[attr-defined]  # until the number of steps is known
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, Pace):
                    callback.thin = True
        if isinstance(self.model, OneClassDetector):
            size = self.datamodule.preprocessing.size
            self.model.check_size(size)
            self.model.check_memory(size, self.trainer.strategy.root_device, self.trainer.num_devices)
        self.datamodule.processes = self.trainer.num_devices if self.trainer.local_rank == 0 else 1
        path = self.config["fit"]["ckpt_path"]
        checkpoint = read_checkpoint(Path(path)) if path and Path(path).is_file() else None
        if checkpoint:
            self._take_up(Path(path), checkpoint)
        else:
            self._hand_over()
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        if isinstance(self.model, CCD):
            self.model.take_distributions(self.datamodule.distributions, "fit")
        if checkpoint:
            if self.datamodule.split:
                _check_split(self.datamodule.split, runs.run_folder(Path(path)) / runs.MANIFEST)
            check_same_steps(Path(path), checkpoint, self.datamodule, self.trainer)

    def _hand_over(self) -> None:
        """Reads the encoders, writes which ones into the config, and has the data hold out what their runs held out."""
        self.model.setup("fit")
        self.sources = getattr(self.model, "encoder_sources", {})
        self._write_sources()
        for name, source in self.sources.items():  # so that Lightning's own call of setup reads the same file
            if source.weights != RANDOM:
                setattr(self.model, f"{name}_config", EncoderConfig(source.weights, source.digest))
        if origins := [source for source in self.sources.values() if source.is_run]:
            self.datamodule.follow([source.division for source in origins])

    def _take_up(self, path: Path, checkpoint: dict[str, Any]) -> None:
        """Goes by the checkpoint of a run to resume, which has the encoders' weights and names where they came from."""
        if class_path(self.model) != (kept := model_of(checkpoint)):
            raise UserError(f"{path}: the checkpoint is of {kept}, the config asks for {class_path(self.model)}.")
        for name in ("encoder_config", "local_encoder_config"):
            if hasattr(self.model, name):
                setattr(self.model, name, EncoderConfig())  # so that nothing is read
        self.model.setup("fit")
        recorded = recorded_sources(checkpoint)
        used = getattr(self.model, "encoder_sources", {})
        self.sources = {name: recorded.get(name, source) for name, source in used.items()}
        self._write_sources()
        self.datamodule.follow([Division.from_state(checkpoint.get(DIVISION_KEY))], own=True)

    def _write_sources(self) -> None:
        """Has the config name the encoders' files instead of where they were looked for."""
        arguments = self.config["fit"]["model"]["init_args"]
        for name, source in self.sources.items():
            if source.weights != RANDOM:
                arguments[name]["weights"], arguments[name]["digest"] = source.weights, source.digest

    def before_validate(self) -> None:
        """Has the data hold out what the run held out."""
        self._follow_run(self.config["validate"]["ckpt_path"])

    def _follow_run(self, checkpoint: str) -> None:
        self.datamodule.follow([Division.from_state(read_checkpoint(Path(checkpoint)).get(DIVISION_KEY))], own=True)

    def before_test(self) -> None:
        """Refuses to test on what the run was trained on, where the run's split is still beside its checkpoint."""
        self._follow_run(self.config["test"]["ckpt_path"])
        self.datamodule.prepare_data()
        self.datamodule.setup("test")
        file = runs.run_folder(Path(self.config["test"]["ckpt_path"])) / runs.MANIFEST
        split: Manifest | None = self.datamodule.split
        if split and file.is_file():
            trained = {row.path for row in Manifest.read(file, split.root).select("train")}
            if seen := [row.path for row in split.select("test") if row.path in trained]:
                raise UserError(
                    f"{seen[0]}, to be tested on, was trained on, as {len(seen) - 1} others were. Test on the run's own"
                    f" split with --data.layout {quote(str(file))}, or fit anew."
                )

    def before_instantiate_classes(self) -> None:
        """Finds the run that `fit --ckpt_path last` is to go on with, which the logger's folder tells."""
        config = self.config[self.subcommand]
        if self.subcommand == "fit" and config["ckpt_path"] == "last":
            go_on_with_last(config)
        if config["ckpt_path"]:
            config["ckpt_path"] = str(expand(config["ckpt_path"]))
            config["weights_only"] = True  # a checkpoint need not be trusted to run code

    def fit(self, model: LightningModule, **kwargs: Any) -> None:
        """Fits; Ctrl-C, from which Lightning exits by itself, and SIGTERM are told with the way to go on."""
        folder = self.trainer.log_dir if self.trainer.is_global_zero else None  # later, other ranks may be gone
        try:
            self.trainer.fit(model, **kwargs)
        except SystemExit as stop:
            if not self.trainer.interrupted:
                raise
            raise KeyboardInterrupt(_way_out(folder)) from stop
        except TrainingBroken as stop:
            if not self.trainer.is_global_zero:
                raise SystemExit(0) from stop  # the first rank tells, as below
            raise
        except Terminated as stop:
            if not self.trainer.is_global_zero:
                raise SystemExit(0) from stop  # any other code makes Lightning kill the first rank, which tells
            raise Terminated(_way_out(folder)) from stop

    def test(self, model: LightningModule, **kwargs: Any) -> None:
        """Tests; the report prints the metrics, so Lightning need not."""
        self.trainer.test(model, **kwargs | {"verbose": False})

    def predict(self, model: LightningModule, **kwargs: Any) -> None:
        """Predicts, and keeps no map in memory; Ctrl-C is told with where the images are that were done before."""
        if self.paths is not None:
            data = self.datamodule
            kwargs["datamodule"] = ImageFiles(self.paths, data.preprocessing, data.batch_size, data.num_workers)
        try:
            self.trainer.predict(model, **kwargs | {"return_predictions": False})
        except SystemExit as stop:
            if not self.trainer.interrupted:
                raise
            raise KeyboardInterrupt(self.writer.so_far()) from stop

    def after_predict(self) -> None:
        """Says what was predicted, below the progress bar."""
        rank_zero_only(print)(self.writer.summary())

    def after_fit(self) -> None:
        """Records that the run is finished, and says what to do next."""
        folder = self.trainer.log_dir  # on every rank: Lightning broadcasts it
        if folder and self.trainer.loggers and not getattr(self.trainer, "fast_dev_run", 0):
            record_run(Path(folder), self, self.sources)


def _seed(value: Any) -> int:
    """The seed of the data, which is that of everything.

    Raises:
        UserError: If it is no seed: LightningCLI takes true and false too, and draws one or none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise UserError(
            f"seed_everything is {str(value).lower()}, but must be a whole number from 0 to {2**32 - 1}. For other"
            " random numbers, give another one."
        )
    return value


def _way_out(folder: str | None) -> str:
    if folder and (Path(folder) / runs.CHECKPOINTS / "last.ckpt").is_file():
        return runs.how_to_go_on(os.path.relpath(folder))
    return ""


def run_training(words: list[str]) -> int:
    """Runs one of Lightning's commands.

    Args:
        words: The command and its options.

    Returns:
        The exit code: 3 where a prediction had to skip images.

    Raises:
        UserError: For a mistake in an option, a config or the data.
    """
    _quieten()
    trust, words = OPTION in words, [word for word in words if word != OPTION]
    images = None
    if words[0] == "predict" and {"-h", "--help"} & set(words):
        print(PREDICT_HELP)
    elif words[0] == "predict":
        images, words = take_images(words)
    with tempfile.TemporaryDirectory() as folder:
        words = _epochs_before_steps(words)
        words = resolve(words, Path(folder), trust)
        try:
            return _run_cli(words, images)
        except ArgumentError as error:
            raise UserError(explain(str(error), error)) from error
        except MisconfigurationException as error:
            raise UserError(explain_trainer(str(error))) from error
        except ValueError as error:
            if (told := users_mistake(error)) or "Does not validate against" in str(error):
                raise told or UserError(explain(str(error))) from error
            raise


def _epochs_before_steps(words: list[str]) -> list[str]:
    """Lets a number of epochs on the command line replace a config's number of steps, which would end the fit too."""
    given = {word.split("=")[0] for word in words}
    endless = "--trainer.max_epochs=-1" in words or ["--trainer.max_epochs", "-1"] in map(list, pairwise(words))
    if words[0] != "fit" or "--trainer.max_epochs" not in given or "--trainer.max_steps" in given or endless:
        return words
    return [*words, "--trainer.max_steps=-1"]


def _run_cli(words: list[str], images: ImagesRequest | None) -> int:
    run = Path()
    if words[0] == "predict" and not {"-h", "--help"} & set(words):
        run = runs.run_folder(Path(words[words.index("--ckpt_path") + 1]))
        words = [*words, "--trainer.logger", "false"]  # there is nothing to log, and the run may be another's
    writer: PredictionFile | ImagePredictions = PredictionFile(run)
    if images:
        writer = ImagePredictions(run, images.output, images.maps, images.overlays)
    callbacks: list[Callback] = [
        ValidateLast(),
        SaveWhenTerminated(),
        StopWhenBroken(),
        CollapseMonitor(),
        FamilyAdvice(),
        PretextCharts(),
        PretextPictures(),
        ReconstructionPictures(),
        LearningRate("step"),
        Throughput(),
        Pace(),
        TestReport(),
        writer,
    ]
    cli = CLI(
        images.paths if images else None,
        writer,
        save_config_callback=KeepConfig,
        trainer_defaults={
            "callbacks": callbacks,
            "num_sanity_val_steps": 0,  # there is nothing to check: PaDiM cannot score before it is fitted
            "use_distributed_sampler": False,  # ours knows ranks itself
            "enable_model_summary": False,
            "log_every_n_steps": None,  # by the number of steps
        },
        seed_everything_default=0,
        parser_kwargs={"exit_on_error": False} | {name: {"exit_on_error": False} for name in CLI.subcommands()},
        subclass_mode_model=True,
        subclass_mode_data=True,
        args=words,
    )
    # Any code of another rank's makes Lightning kill the first one.
    skipped = isinstance(writer, ImagePredictions) and writer.tally.skipped and cli.trainer.is_global_zero
    return SKIPPED if skipped else 0


def _quieten() -> None:
    """Leaves out what Lightning says about itself, but none of what it says about the run."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*returned `None`, this fit will run with no optimizer.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*dirpath has changed.*",  # as it does when a checkpoint is tested in another folder
        ".*dataloader is not resumable.*",  # the data module keeps the place
        ".*Checkpoint directory .* exists and is not empty.*",  # a run that goes on
        ".*module.s. in eval mode at the start of training.*",  # encoders that are not trained
        ".*Couldn't infer the batch indices.*",  # of predictions, which are written by their paths
        ".*using a custom batch sampler.*",  # ours returns every index
        ".*recommended to use `self.log.*sync_dist=True.*",  # what is logged was reduced already, in one piece
    ):
        warnings.filterwarnings("ignore", message=message)
