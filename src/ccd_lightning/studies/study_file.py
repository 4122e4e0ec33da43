"""Reading of study files. Each error is reported in one sentence that names the file and the key."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ccd_lightning import shipped
from ccd_lightning.commands import expand
from ccd_lightning.errors import UserError
from ccd_lightning.similar import did_you_mean, similar
from ccd_lightning.studies.configs import SET, find_config
from ccd_lightning.studies.definition import (
    METRICS,
    DataSet,
    DetectorChoice,
    EncoderChoice,
    Method,
    Options,
    PublishedFigure,
    Study,
)
from ccd_lightning.studies.strict import StrictReader, flat_options
from ccd_lightning.yaml_files import read_mapping

FOLDER = Path("studies")
KEYS = (*("sets", "encoders", "detectors", "seeds", "output", "network", "options", "compare", "metrics", "published"),)
RESERVED = ("pretraining", "pretraining_local")  # folder names of an encoder's own runs
OWN = ("data.root", "seed_everything", "ckpt_path", "trainer.logger", "config")  # options set by the study
WEIGHTS = ("imagenet", "auto")
BASELINES = ("imagenet",)


def find_study(name: str) -> Path:
    """Returns the path of a study file, given its path or the name of a shipped study.

    Raises:
        UserError: If there is neither.
    """
    path = expand(name)
    if path.is_file():
        return path
    if file := shipped.find_study(name):
        return file
    names = shipped.study_names()
    hint = did_you_mean(similar(Path(name).stem, names), f"give a file (.yaml), or one of {', '.join(names)}.")
    raise UserError(f"{name or 'STUDY is empty'}: there is no such study file, nor a shipped study; {hint}")


def read_study(file: Path) -> Study:
    """Reads a study file.

    Raises:
        UserError: If it does not have the format described in `docs/studies.md`.
    """
    return _Reader(file).study(read_mapping(file, "sets, encoders and detectors"))


class _Reader(StrictReader):
    """Converts the content of a study file to a `Study`. Paths in it are relative to its folder."""

    def study(self, content: Any) -> Study:
        top = self.mapping(content, "", KEYS, ("sets", "encoders", "detectors"))
        sets = {name: self.data_set(name, value) for name, value in self.named(top["sets"], "sets").items()}
        encoders = {name: self.encoder(name, value) for name, value in self.named(top["encoders"], "encoders").items()}
        self.origins(encoders)
        detectors = {
            name: self.detector(name, value) for name, value in self.named(top["detectors"], "detectors").items()
        }
        return Study(
            file=self.file,
            output=expand(self.text(top.get("output") or str(FOLDER / self.file.stem), "output")),
            sets=sets,
            encoders=encoders,
            detectors=detectors,
            seeds=self.seeds(top.get("seeds", [0])),
            network=self.optional_text(top.get("network"), "network"),
            options=self.options(top.get("options"), "options"),
            compare=self.pairs(top.get("compare"), encoders),
            metrics=tuple(self.values(top.get("metrics", list(METRICS)), str, "metrics", "names as in metrics.json")),
            published=tuple(self.published(top.get("published"), sets, encoders)),
        )

    def data_set(self, name: str, value: Any) -> DataSet:
        key = f"sets.{name}"
        if isinstance(value, str):
            return DataSet(name, value)
        given = self.mapping(value, key, ("root", "data", "options", "counts"), ("root",))
        counts = self.values(given.get("counts", []), int, f"{key}.counts", "three numbers: train, normal, abnormal")
        if len(counts) not in (0, 3):
            self.refuse(f"{key}.counts", "expected three numbers: train, normal, abnormal")
        return DataSet(
            name,
            self.text(given["root"], f"{key}.root"),
            self.optional_text(given.get("data"), f"{key}.data"),
            self.options(given.get("options"), f"{key}.options"),
            (counts[0], counts[1], counts[2]) if counts else None,
        )

    def encoder(self, name: str, value: Any) -> EncoderChoice:
        key = f"encoders.{name}"
        if value is None:
            return EncoderChoice(name)
        if isinstance(value, str):
            value = {"config" if self.is_config(value) else "weights": value}
        keys = ("weights", "network", "config", "model", "options", "local", "from")
        given = self.mapping(value, key, keys, ())
        network = self.optional_text(given.get("network"), f"{key}.network")
        trains = sorted({"config", "model", "options", "local", "from"} & given.keys())
        if "weights" in given and trains:
            self.refuse(f"{key}.{trains[0]}", "weights that are given are not pretrained: leave out one of the two")
        if trains:
            local = self.method(given["local"], f"{key}.local") if given.get("local") is not None else None
            rest = {part: given[part] for part in ("config", "model", "options") if part in given}
            origin = self.optional_text(given.get("from"), f"{key}.from")
            return EncoderChoice(name, None, network, self.method(rest, key), local, origin)
        return EncoderChoice(name, self.weights(given.get("weights"), f"{key}.weights"), network)

    def origins(self, encoders: Mapping[str, EncoderChoice]) -> None:
        """Checks that encoders start only from encoders that are pretrained before them."""
        before: list[str] = []
        for name, encoder in encoders.items():
            if encoder.origin is not None and encoder.origin not in before:
                known = f"there are {', '.join(before)}" if before else "there is none"
                self.refuse(
                    f"encoders.{name}.from", f"{encoder.origin!r} is no pretrained encoder above this one; {known}"
                )
            before += [name] * (encoder.pretraining is not None)

    def detector(self, name: str, value: Any) -> DetectorChoice:
        if name in RESERVED:
            self.refuse(f"detectors.{name}", "this name is that of the encoder's own runs; take another one")
        return DetectorChoice(name, self.method(value, f"detectors.{name}"))

    def method(self, value: Any, key: str) -> Method:
        if isinstance(value, str):
            value = {"config" if self.is_config(value) or "." not in value else "model": value}
        given = self.mapping(value, key, ("config", "model", "options"), ())
        config, model = (self.optional_text(given.get(part), f"{key}.{part}") for part in ("config", "model"))
        if config is None and model is None:
            self.refuse(key, "give a config or, as model, a class")
        return Method(self.config(config, key) if config else None, model, self.options(given.get("options"), key))

    def is_config(self, value: str) -> bool:
        return Path(value).suffix in (".yaml", ".yml") or value in shipped.names() or SET in value

    def config(self, value: str, key: str) -> str:
        """Returns the path of a config. If its name contains `<set>`, it is looked up once the sets are known."""
        if SET not in value:
            return str(find_config(value, self.file, key))
        return value

    def weights(self, value: Any, key: str) -> str | None:
        text = self.optional_text(value, key)
        if text is None or text in WEIGHTS:
            return text
        path = expand(text)
        found = next((one for one in (self.file.parent / path, path) if one.exists()), None)
        if found is None:
            self.refuse(key, f"there is no file {text}; weights are null, imagenet, a file or a run")
        return str(found)

    def options(self, value: Any, key: str) -> Options:
        """Returns options by their dotted names, from a mapping that may be nested."""
        if value is None:
            return {}
        found = dict(flat_options(self.mapping(value, key, None, ())))
        for name in found:
            if any(name == own or name.startswith(f"{own}.") for own in OWN):
                self.refuse(f"{key}.{name}", "the study itself sets this option; leave it out")
            if name.split(".")[0] not in ("data", "model", "trainer") or "." not in name:
                self.refuse(f"{key}.{name}", "an option's name begins with data., model. or trainer.")
        return found

    def seeds(self, value: Any) -> tuple[int, ...]:
        seeds = self.values(value, int, "seeds", "a list of whole numbers, such as [0, 1, 2]")
        if not seeds or not all(0 <= seed < 2**32 for seed in seeds):
            self.refuse("seeds", f"expected whole numbers from 0 to {2**32 - 1}, at least one")
        if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
            self.refuse("seeds", f"{twice[0]} is given twice; each cell is run once with each seed")
        return tuple(seeds)

    def pairs(self, value: Any, encoders: Collection[str]) -> tuple[tuple[str, str], ...]:
        """Returns the pairs of encoders to compare: by default, each with ImageNet weights, or else the first one."""
        if value is None:
            baseline = next((name for name in BASELINES if name in encoders), next(iter(encoders)))
            return tuple((name, baseline) for name in encoders if name != baseline)
        pairs = value if isinstance(value, list) else [value]
        for index, pair in enumerate(pairs):
            if not (isinstance(pair, list) and len(pair) == 2 and pair[0] != pair[1]):
                self.refuse(f"compare.{index}", "give a list of pairs of encoders, such as [[ccd, imagenet]]")
            for name in pair:
                self.known(str(name), encoders, f"compare.{index}", "encoder")
            if pair in pairs[:index]:
                self.refuse(f"compare.{index}", "this pair is given twice")
        return tuple((str(first), str(second)) for first, second in pairs)

    def published(self, value: Any, sets: Collection[str], encoders: Collection[str]) -> Iterable[PublishedFigure]:
        for number, entry in enumerate(value if isinstance(value, list) else [value] if value else []):
            key = f"published.{number}"
            paper = self.mapping(entry, key, ("source", "protocol", "figures"), ("source", "protocol", "figures"))
            source, protocol = (self.text(paper[part], f"{key}.{part}") for part in ("source", "protocol"))
            for index, figure in enumerate(paper["figures"] if isinstance(paper["figures"], list) else [None]):
                prefix = f"{key}.figures.{index}"
                keys = ("set", "encoder", "method", "metric", "value")
                given = self.mapping(figure, prefix, keys, ("set", "value"))
                self.known(str(given["set"]), sets, f"{prefix}.set", "data set")
                encoder = self.optional_text(given.get("encoder"), f"{prefix}.encoder")
                if encoder is not None:
                    self.known(encoder, encoders, f"{prefix}.encoder", "encoder")
                if type(given["value"]) not in (int, float):
                    self.refuse(f"{prefix}.value", "give a number")
                method = self.text(given.get("method", ""), f"{prefix}.method")
                metric = self.text(given.get("metric", "image/auroc"), f"{prefix}.metric")
                yield PublishedFigure(
                    str(given["set"]), float(given["value"]), source, protocol, encoder, method, metric
                )
