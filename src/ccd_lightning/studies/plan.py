"""The runs of a study in the order of execution, with their commands."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pydoc import locate
from typing import Any

from ccd_lightning.errors import UserError
from ccd_lightning.modules.loading import DETECTORS
from ccd_lightning.studies.configs import SET, class_in, config_content, find_config
from ccd_lightning.studies.definition import DataSet, DetectorChoice, EncoderChoice, Method, Study

PRETRAINING, LOCAL = "pretraining", "pretraining_local"
MACHINE = (  # options that determine where and how fast a run is computed, but not its result
    *("data.root", "data.num_workers", "data.cache_dir", "data.views.augment_on", "trainer.accelerator"),
    *("trainer.strategy", "trainer.devices", "trainer.num_nodes", "trainer.enable_progress_bar"),
)


@dataclass(frozen=True)
class Step:
    """A run of the study: an encoder's pretraining, or a cell.

    Attributes:
        data: Name of the data set.
        encoder: Name of the encoder.
        detector: Name of the detector, or "pretraining" or "pretraining_local".
        seed: Seed of the run.
        folder: Folder of the run's versions.
        config: Path of the config, "" for none.
        options: Options of the fit, by their dotted names.
        needs: Runs whose weights it uses.
    """

    data: str
    encoder: str
    detector: str
    seed: int
    folder: Path
    config: str
    options: Mapping[str, str]
    needs: tuple[Step, ...] = ()

    @property
    def is_cell(self) -> bool:
        """Whether it is a cell of the table, i.e. a detector that is tested."""
        return self.detector not in (PRETRAINING, LOCAL)

    @property
    def kind(self) -> tuple[str, str, str]:
        """Set, encoder and detector, which are the same for all seeds."""
        return self.data, self.encoder, self.detector

    @property
    def title(self) -> str:
        """Title, such as "head_ct, ccd, padim, seed 0"."""
        return f"{self.data}, {self.encoder}, {self.detector.replace('_', ' ')}, seed {self.seed}"

    @property
    def key(self) -> str:
        """Key in the study file that defines how it is fitted."""
        parts = {PRETRAINING: f"encoders.{self.encoder}", LOCAL: f"encoders.{self.encoder}.local"}
        return parts.get(self.detector, f"detectors.{self.detector}")

    @property
    def argv(self) -> list[str]:
        """The fit command, without the options that set where the run is stored."""
        config = ["--config", self.config] if self.config else []
        return ["fit", *config, *(f"--{name}={value}" for name, value in self.options.items())]

    @cached_property
    def digest(self) -> str:
        """Digest of everything that determines the result: config, options, and the runs whose weights it uses."""
        options = {name: value for name, value in self.options.items() if name not in MACHINE}
        for name, step in zip(WEIGHTS, self.needs, strict=False):
            options[name] = step.digest
        content = [config_content(Path(self.config)) if self.config else None, options]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


WEIGHTS = ("model.encoder.weights", "model.local_encoder.weights")


def steps(study: Study, roots: Mapping[str, Path]) -> list[Step]:
    """Returns all runs of a study: one seed after another, and pretraining before the cells that use it.

    Args:
        study: The study.
        roots: Folders of the data sets.

    Raises:
        UserError: If a config or class does not exist, or an encoder has no local branch but a detector needs one.
    """
    found: list[Step] = []
    for seed in study.seeds:
        for data in study.sets.values():
            made: dict[tuple[str, str], Step] = {}  # pretraining on this set with this seed, by encoder and branch
            for encoder in study.encoders.values():
                column = _Column(study, data, encoder, seed, roots[data.name]).steps(made)
                made |= {(step.encoder, step.detector): step for step in column if not step.is_cell}
                found += column
    return found


class _Column:
    """The runs of one encoder on one set with one seed."""

    def __init__(self, study: Study, data: DataSet, encoder: EncoderChoice, seed: int, root: Path) -> None:
        self.study, self.data, self.encoder, self.seed, self.root = study, data, encoder, seed, root
        self.network = encoder.network or study.network

    def steps(self, made: Mapping[tuple[str, str], Step]) -> list[Step]:
        """Returns pretraining and cells. `made` has the pretraining of the encoders above, by encoder and branch."""
        branches: list[Step] = []
        if self.encoder.pretraining:
            branches.append(self._pretraining(PRETRAINING, self.encoder.pretraining, made))
        detectors = {name: self._two_scales(one) for name, one in self.study.detectors.items()}
        if self.encoder.local and any(detectors.values()):
            branches.append(self._pretraining(LOCAL, self.encoder.local, made))
        cells = [self._cell(self.study.detectors[name], two, branches) for name, two in detectors.items()]
        return [*branches, *cells]

    def _pretraining(self, branch: str, method: Method, made: Mapping[tuple[str, str], Step]) -> Step:
        options, origin = self._names("model.encoder"), self.encoder.origin
        if origin is None:
            return self._step(branch, method, options)
        if (origin, branch) not in made:
            raise UserError(
                f"{self.study.file}: encoders.{self.encoder.name}.from: {origin} has no local branch to start from;"
                f" give encoders.{origin}.local."
            )
        first = made[origin, branch]
        return self._step(branch, method, options | {WEIGHTS[0]: str(first.folder)}, (first,))

    def _cell(self, detector: DetectorChoice, two_scales: bool, branches: list[Step]) -> Step:
        if two_scales and self.encoder.pretraining and not self.encoder.local:
            raise UserError(
                f"{self.study.file}: encoders.{self.encoder.name}.local: this key is missing: {detector.name} has an"
                " encoder for windows too; give the config that pretrains it, such as local: ccd_folder_local."
            )
        needs = tuple(branches if two_scales else branches[:1])
        options: dict[str, str] = {}
        for index, name in enumerate(WEIGHTS[: 1 + two_scales]):
            options |= self._names(name.removesuffix(".weights"))
            options[name] = str(needs[index].folder) if needs else self.encoder.weights or "null"
        return self._step(detector.name, detector.method, options, needs)

    def _step(self, name: str, method: Method, options: Mapping[str, str], needs: tuple[Step, ...] = ()) -> Step:
        """Creates a run. Options of the set override those of the study, and the method's own options override both."""
        folder = self.study.output / "runs" / self.data.name / self.encoder.name / name / f"seed_{self.seed}"
        every: dict[str, str] = {}
        if method.model:
            every["model"] = method.model
        if self.data.data or not method.config:
            every["data"] = self.data.data or "Folder"
        every |= {"seed_everything": str(self.seed), "data.root": str(self.root)}
        every |= {**options, **self.study.options, **self.data.options, **method.options}
        config = self._config(method, name)
        return Step(self.data.name, self.encoder.name, name, self.seed, folder, config, every, needs)

    def _names(self, option: str) -> dict[str, str]:
        return {f"{option}.name": self.network} if self.network else {}

    def _config(self, method: Method, name: str) -> str:
        if not method.config:
            return ""
        key = f"encoders.{self.encoder.name}" if name in (PRETRAINING, LOCAL) else f"detectors.{name}"
        return str(find_config(method.config.replace(SET, self.data.name), self.study.file, key))

    def _two_scales(self, detector: DetectorChoice) -> bool:
        """Returns whether a detector has an encoder for windows in addition to that for whole images."""
        model = detector.method.model
        if not model:
            model = class_in(Path(self._config(detector.method, detector.name)), "model")
        known: Any = {kind.__name__: kind for kind in DETECTORS}.get(model.rpartition(".")[2]) or locate(model)
        return isinstance(known, type) and "local_encoder" in inspect.signature(known).parameters
