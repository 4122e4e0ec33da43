"""Reading a study file; each mistake in it is reported in one sentence that names the file and the key."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ccd_lightning import shipped
from ccd_lightning.commands import expand
from ccd_lightning.errors import UserError
from ccd_lightning.studies.definition import (
    DataSet,
    DetectorChoice,
    EncoderChoice,
    Method,
    Options,
    PublishedFigure,
    Study,
)

FOLDER = Path("studies")
KEYS = ("sets", "encoders", "detectors", "seeds", "output", "network", "options", "compare", "published")
NAME = re.compile(r"\w[\w.+-]*")
RESERVED = ("pretraining", "pretraining_local")  # the folders of an encoder's own runs
OWN = ("data.root", "seed_everything", "ckpt_path", "trainer.logger", "config")  # which the study sets
WEIGHTS = ("imagenet", "auto")
BASELINES = ("imagenet",)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set[str]()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def find_study(name: str) -> Path:
    """The file of a study: a path, or the name of a shipped one.

    Raises:
        UserError: If there is neither.
    """
    path = expand(name)
    if path.is_file():
        return path
    if file := shipped.find_study(name):
        return file
    close = difflib.get_close_matches(Path(name).stem, shipped.study_names(), n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise UserError(
        f"{name}: there is no such study file, nor a shipped study.{hint} Shipped: {', '.join(shipped.study_names())}."
    )


def read_study(file: Path) -> Study:
    """Reads a study file.

    Raises:
        UserError: If it is not as `docs/studies.md` describes it.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{file}{line}: {error.problem}.") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{file}: cannot be read ({error}).") from error
    return _Reader(file).study(content)


class _Reader:
    """Turns the content of a study file into a `Study`.

    Args:
        file: Named in messages; paths in it are relative to its folder.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def study(self, content: Any) -> Study:
        top = self.mapping(content, "", KEYS, ("sets", "encoders", "detectors"))
        sets = {name: self.data_set(name, value) for name, value in self.named(top["sets"], "sets").items()}
        encoders = {name: self.encoder(name, value) for name, value in self.named(top["encoders"], "encoders").items()}
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
            published=tuple(self.published(top.get("published"), sets, encoders)),
        )

    def data_set(self, name: str, value: Any) -> DataSet:
        key = f"sets.{name}"
        if isinstance(value, str):
            return DataSet(name, value)
        given = self.mapping(value, key, ("root", "data", "options"), ("root",))
        return DataSet(
            name,
            self.text(given["root"], f"{key}.root"),
            self.optional_text(given.get("data"), f"{key}.data"),
            self.options(given.get("options"), f"{key}.options"),
        )

    def encoder(self, name: str, value: Any) -> EncoderChoice:
        key = f"encoders.{name}"
        if value is None:
            return EncoderChoice(name)
        if isinstance(value, str):
            value = {"config" if self.is_config(value) else "weights": value}
        keys = ("weights", "network", "config", "model", "options", "local")
        given = self.mapping(value, key, keys, ())
        network = self.optional_text(given.get("network"), f"{key}.network")
        trains = sorted({"config", "model", "options", "local"} & given.keys())
        if "weights" in given and trains:
            self.refuse(f"{key}.{trains[0]}", "weights that are given are not pretrained: leave out one of the two")
        if trains:
            local = self.method(given["local"], f"{key}.local") if given.get("local") is not None else None
            rest = {part: given[part] for part in ("config", "model", "options") if part in given}
            return EncoderChoice(name, None, network, self.method(rest, key), local)
        return EncoderChoice(name, self.weights(given.get("weights"), f"{key}.weights"), network)

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
        return Path(value).suffix in (".yaml", ".yml") or value in shipped.names() or "{set}" in value

    def config(self, value: str, key: str) -> str:
        """A config as the commands will find it; one with `{set}` in its name is looked for when sets are known."""
        if "{set}" not in value:
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
        """Options by their dotted names, from a mapping that may be nested."""
        if value is None:
            return {}
        found = dict(_flat(self.mapping(value, key, None, ())))
        for name in found:
            if any(name == own or name.startswith(f"{own}.") for own in OWN):
                self.refuse(f"{key}.{name}", "the study itself sets this option; leave it out")
            if name.split(".")[0] not in ("data", "model", "trainer") or "." not in name:
                self.refuse(f"{key}.{name}", "an option's name begins with data., model. or trainer.")
        return found

    def seeds(self, value: Any) -> tuple[int, ...]:
        seeds = value if isinstance(value, list) else [value]
        if not seeds or not all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds):
            self.refuse("seeds", "give a list of whole numbers, such as [0, 1, 2]")
        if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
            self.refuse("seeds", f"{twice[0]} stands twice; each cell is run once with each seed")
        return tuple(seeds)

    def pairs(self, value: Any, encoders: Collection[str]) -> tuple[tuple[str, str], ...]:
        """Which encoders are compared; by default all others with ImageNet weights, or else with the first one."""
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
                self.refuse(f"compare.{index}", "this pair stands twice")
        return tuple((str(first), str(second)) for first, second in pairs)

    def published(
        self, value: Any, sets: Collection[str], encoders: Collection[str]
    ) -> Iterable[PublishedFigure]:
        for number, entry in enumerate(value if isinstance(value, list) else [value] if value else []):
            key = f"published.{number}"
            paper = self.mapping(entry, key, ("source", "protocol", "figures"), ("source", "protocol", "figures"))
            source, protocol = (self.text(paper[part], f"{key}.{part}") for part in ("source", "protocol"))
            for index, figure in enumerate(paper["figures"] if isinstance(paper["figures"], list) else [None]):
                place = f"{key}.figures.{index}"
                keys = ("set", "encoder", "method", "metric", "value")
                given = self.mapping(figure, place, keys, ("set", "value"))
                self.known(str(given["set"]), sets, f"{place}.set", "data set")
                encoder = self.optional_text(given.get("encoder"), f"{place}.encoder")
                if encoder is not None:
                    self.known(encoder, encoders, f"{place}.encoder", "encoder")
                if type(given["value"]) not in (int, float):
                    self.refuse(f"{place}.value", "give a number")
                method = self.text(given.get("method", ""), f"{place}.method")
                metric = self.text(given.get("metric", "image/auroc"), f"{place}.metric")
                yield PublishedFigure(
                    str(given["set"]), float(given["value"]), source, protocol, encoder, method, metric
                )

    def named(self, value: Any, key: str) -> dict[str, Any]:
        given = self.mapping(value, key, None, ())
        if not given:
            self.refuse(key, "give at least one")
        for name in given:
            if not NAME.fullmatch(name):
                self.refuse(f"{key}.{name}", "names consist of letters, digits and . _ + -, as folders have them")
        return given

    def mapping(
        self, value: Any, key: str, allowed: Collection[str] | None, required: Collection[str]
    ) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.refuse(key, f"expected {' or '.join(allowed) if allowed else 'names'} with values")
        given = {str(name): content for name, content in value.items()}
        prefix = f"{key}." if key else ""
        for name in given if allowed is not None else ():
            self.known(name, allowed or (), f"{prefix}{name}", "key")
        for name in required:
            if given.get(name) is None:
                self.refuse(f"{prefix}{name}", "this key is missing")
        return given

    def known(self, name: str, names: Collection[str], key: str, what: str) -> None:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}."
            raise UserError(f"{self.file}: {key}: there is no {what} {name!r}; {hint}")

    def text(self, value: Any, key: str) -> str:
        if not isinstance(value, str):
            self.refuse(key, "expected text")
        return value

    def optional_text(self, value: Any, key: str) -> str | None:
        return None if value is None else self.text(value, key)

    def refuse(self, key: str, message: str) -> NoReturn:
        raise UserError(f"{self.file}: {f'{key}: ' if key else ''}{message}.")


def find_config(value: str, file: Path, key: str) -> Path:
    """The file of a config: relative to the study file, relative to the working directory, or shipped.

    Raises:
        UserError: If there is none.
    """
    path = expand(value)
    found = next((one for one in (file.parent / path, path) if one.is_file()), None) or shipped.find(value)
    if found is None:
        close = difflib.get_close_matches(value, shipped.names(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"shipped: {', '.join(shipped.names())}."
        raise UserError(f"{file}: {key}: there is no config {value}; {hint}")
    return found


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, content in value.items():
        if isinstance(content, dict) and content:
            yield from _flat(content, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", content if isinstance(content, str) else json.dumps(content)
