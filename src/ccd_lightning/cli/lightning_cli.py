"""LightningCLI that manages runs."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from ccd_lightning import runs
from ccd_lightning.callbacks.breakdown import TrainingBroken
from ccd_lightning.callbacks.checkpointing import AtomicCheckpointIO
from ccd_lightning.callbacks.pace import Pace
from ccd_lightning.callbacks.prediction_file import PredictionFile
from ccd_lightning.callbacks.predictions import ImagePredictions
from ccd_lightning.checkpoints import DIVISION_KEY, read_checkpoint
from ccd_lightning.cli.callbacks import with_checkpoints, with_one_epoch
from ccd_lightning.cli.continuity import check_same_steps
from ccd_lightning.cli.failures import naming_failures
from ccd_lightning.cli.next_steps import class_path, record_run
from ccd_lightning.cli.parser import Parser, seed_of_data
from ccd_lightning.cli.parser_errors import explain_trainer
from ccd_lightning.cli.predicting import images_to_predict
from ccd_lightning.cli.resume import check_class, check_complete, keep_networks, resume_last
from ccd_lightning.cli.saved_config import check_split, refuse_other_run, refuse_trained
from ccd_lightning.cli.trainer_ranges import check_trainer
from ccd_lightning.commands import expand
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.division import Division
from ccd_lightning.data.manifest import Manifest
from ccd_lightning.encoder_config import RANDOM, EncoderSource, recorded_sources
from ccd_lightning.errors import Terminated, UserError
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.modules.pretraining import EncoderPretraining


class CLI(LightningCLI):
    """LightningCLI that names runs and resumes them.

    Args:
        paths: Images to predict instead of the run's test images, if any.
        writer: Callback that writes the predictions.
        options: Options of LightningCLI.
    """

    datamodule: AnomalyDataModule

    def __init__(self, paths: list[str] | None, writer: PredictionFile | ImagePredictions, **options: Any) -> None:
        self.paths, self.writer = paths, writer
        self.sources: dict[str, EncoderSource] = {}  # sources of the encoders' weights, by the model's options
        super().__init__(LightningModule, AnomalyDataModule, parser_class=Parser, **options)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links the data's seed to `seed_everything`."""
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=seed_of_data)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Creates the trainer.

        Raises:
            UserError: If its options are invalid, such as a strategy that does not exist.
        """
        try:
            return super().instantiate_trainer(**kwargs)
        except (ImportError, TypeError, ValueError) as error:
            raise UserError(explain_trainer(str(error))) from error

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses arguments without Lightning's warning about arguments that do not come from the command line."""
        self.config = parser.parse_args(args)
        self.config[self.config["subcommand"]] = with_checkpoints(self.config[self.config["subcommand"]])

    def _parse_ckpt_path(self) -> None:
        """Does nothing: the config is already based on that of the checkpoint, and current options take precedence."""

    def before_fit(self) -> None:
        """Reads data, encoder and checkpoint, so that errors in them are reported before anything is written."""
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # not set by the user
            self.trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        self.datamodule.trainer = self.trainer  # it knows about other ranks
        if self.config["fit"]["trainer"]["log_every_n_steps"] is None:
            self.trainer.log_every_n_steps = 1  # type: ignore[attr-defined]  # until the number of steps is known
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, Pace):
                    callback.thin = True
        if isinstance(self.model, OneClassDetector):
            device, processes = self.trainer.strategy.root_device, self.trainer.num_devices
            self.model.check_images(self.datamodule.preprocessing, device, processes)
        if isinstance(self.model, EncoderPretraining):
            self.model.check_images(self.datamodule.preprocessing)
        self.datamodule.processes = self.trainer.num_devices if self.trainer.local_rank == 0 else 1
        path = self.config["fit"]["ckpt_path"]
        checkpoint = read_checkpoint(Path(path)) if path and Path(path).is_file() else None
        if checkpoint:
            self._restore_run(Path(path), checkpoint)
        else:
            self._load_encoders()
        refuse_other_run(self.trainer, path)
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        if isinstance(self.model, EncoderPretraining):
            self.model.take_data(self.datamodule, "fit")
            for option, size in self.datamodule.shown_sizes.items():
                self.model.encoder.check_size(size, option)
        if checkpoint:
            if self.datamodule.split:
                check_split(self.datamodule.split, runs.run_folder(Path(path)) / runs.MANIFEST)
            check_same_steps(Path(path), checkpoint, self.datamodule, self.trainer)

    def _load_encoders(self) -> None:
        """Loads the encoders, records their sources here and in the config, and holds out what their runs held out."""
        self.model.setup("fit")
        self.sources = getattr(self.model, "encoder_sources", {})
        self._write_sources()
        for name, source in self.sources.items():
            rank_zero_only(print)(f"{name}: {getattr(self.model, name).name}, {source}")
            # Lightning's own call of setup must read the same file.
            if source.weights != RANDOM:
                config = getattr(self.model, f"{name}_config")
                setattr(self.model, f"{name}_config", replace(config, weights=source.weights, digest=source.digest))
        divisions = [source.division for source in self.sources.values() if source.is_run]
        if divisions := divisions + getattr(self.model, "divisions", []):
            self.datamodule.follow(divisions)

    def _restore_run(self, path: Path, checkpoint: dict[str, Any]) -> None:
        """Restores encoders, their weights' sources and held-out images from the checkpoint of a run to resume."""
        check_class(class_path(self.model), checkpoint, path, required=True)
        check_complete(checkpoint, path)
        for name in ("encoder_config", "local_encoder_config"):
            if hasattr(self.model, name):
                config = getattr(self.model, name)
                setattr(self.model, name, replace(config, weights=None, digest=None))  # so that no weights are read
        self.model.setup("fit")
        recorded = recorded_sources(checkpoint)
        used = getattr(self.model, "encoder_sources", {})
        self.sources = {name: recorded.get(name, source) for name, source in used.items()}
        self._write_sources()
        self.datamodule.follow([Division.from_state(checkpoint.get(DIVISION_KEY))], own=True)

    def _write_sources(self) -> None:
        """Writes the resolved weight files of the encoders to the config, in place of where they were searched for."""
        arguments = self.config["fit"]["model"]["init_args"]
        for name, source in self.sources.items():
            if name not in arguments:  # a user's model that chooses the encoder itself
                continue
            resolved = asdict(getattr(self.model, f"{name}_config")) | {"name": getattr(self.model, name).name}
            for key in resolved.keys() & set(arguments[name].keys()):
                arguments[name][key] = resolved[key]
            arguments[name]["weights"] = None if source.weights == RANDOM else source.weights
            arguments[name]["digest"] = source.digest

    def before_validate(self) -> None:
        """Holds out the images that the run held out."""
        self._follow_run(self.config["validate"]["ckpt_path"])

    def before_predict(self) -> None:
        """Refuses a checkpoint of another model."""
        self._read_own(self.config["predict"]["ckpt_path"])

    def _follow_run(self, path: str) -> None:
        self.datamodule.follow([Division.from_state(self._read_own(path).get(DIVISION_KEY))], own=True)

    def _read_own(self, path: str) -> dict[str, Any]:
        """Reads a checkpoint, which must be of this model."""
        checkpoint = read_checkpoint(Path(path))
        check_class(class_path(self.model), checkpoint, Path(path))
        return checkpoint

    def before_test(self) -> None:
        """Refuses to test on images that the run was trained on, if the run's split is still next to its checkpoint."""
        self._follow_run(self.config["test"]["ckpt_path"])
        self.datamodule.prepare_data()
        self.datamodule.setup("test")
        file = runs.run_folder(Path(self.config["test"]["ckpt_path"])) / runs.MANIFEST
        split: Manifest | None = self.datamodule.split
        if split and file.is_file():
            refuse_trained(split, file)

    def before_instantiate_classes(self) -> None:
        """Finds the run that `fit --ckpt_path last` resumes, by the logger's folder, and its encoders."""
        config = self.config[self.subcommand]
        check_trainer(config["trainer"], str(self.subcommand))
        if self.subcommand == "fit":
            with_one_epoch(config)
        if self.subcommand == "fit" and config["ckpt_path"] == "last":
            resume_last(config)
        if config["ckpt_path"]:
            config["ckpt_path"] = str(expand(config["ckpt_path"]))
            config["weights_only"] = True  # so that a checkpoint cannot run code
            keep_networks(config["model"]["init_args"], Path(config["ckpt_path"]))

    def fit(self, model: LightningModule, **kwargs: Any) -> None:
        """Fits the model. After Ctrl-C, on which Lightning exits, or SIGTERM, the message states how to resume."""
        folder = self.trainer.log_dir if self.trainer.is_global_zero else None  # later, other ranks may be gone
        try:
            with naming_failures(folder, lambda: runs.resume_hint(folder)):
                self.trainer.fit(model, **kwargs)
        except SystemExit as stop:
            if not self.trainer.interrupted:
                raise
            raise KeyboardInterrupt(runs.resume_hint(folder)) from stop
        except TrainingBroken as stop:
            if not self.trainer.is_global_zero:
                raise SystemExit(0) from stop  # the first rank reports it, as below
            raise
        except Terminated as stop:
            if not self.trainer.is_global_zero:
                raise SystemExit(0) from stop  # any other code makes Lightning kill the first rank, which reports it
            raise Terminated(runs.resume_hint(folder)) from stop

    def test(self, model: LightningModule, **kwargs: Any) -> None:
        """Tests the model. Lightning does not print the metrics, because the report does."""
        self.trainer.test(model, **kwargs | {"verbose": False})

    def predict(self, model: LightningModule, **kwargs: Any) -> None:
        """Predicts without keeping maps in memory. After Ctrl-C, the message states where the finished images are."""
        if self.paths is not None:
            kwargs["datamodule"] = images_to_predict(self.paths, self.datamodule)
        try:
            self.trainer.predict(model, **kwargs | {"return_predictions": False})
        except SystemExit as stop:
            if not self.trainer.interrupted:
                raise
            raise KeyboardInterrupt(self.writer.so_far()) from stop

    def after_predict(self) -> None:
        """Prints a summary of the predictions below the progress bar."""
        rank_zero_only(print)(self.writer.summary())

    def after_fit(self) -> None:
        """Records that the run is finished, and prints the next step."""
        folder = self.trainer.log_dir  # on every rank, because Lightning broadcasts it
        if folder and self.trainer.loggers and not getattr(self.trainer, "fast_dev_run", 0):
            record_run(Path(folder), self, self.sources)
