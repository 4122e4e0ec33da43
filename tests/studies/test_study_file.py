"""What a study file may say, and the sentence for each mistake in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ccd_lightning.cli import main
from ccd_lightning.errors import UserError
from ccd_lightning.studies.definition import Method
from ccd_lightning.studies.study_file import find_study, read_study

SMALL: dict[str, Any] = {
    "sets": {"a": "images"},
    "encoders": {"untrained": None},
    "detectors": {"padim": "padim_folder"},
}


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(content: dict[str, Any] | str) -> Path:
    file = Path("mine.yaml")
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return file


def test_defaults_of_a_minimal_study() -> None:
    study = read_study(write(SMALL))
    assert study.output == Path("studies/mine")
    assert study.seeds == (0,)
    assert study.compare == ()
    assert study.sets["a"].root == "images"
    assert study.encoders["untrained"].weights is None
    method = study.detectors["padim"].method
    assert method.config is not None
    assert method.config.endswith("configs/padim_folder.yaml")


def test_each_way_to_write_an_encoder_and_a_detector() -> None:
    Path("weights.pth").touch()
    Path("own.yaml").touch()
    study = read_study(
        write(
            SMALL
            | {
                "encoders": {
                    "untrained": None,
                    "imagenet": "imagenet",
                    "file": {"weights": "weights.pth", "network": "resnet50"},
                    "ccd": "ccd_folder",
                    "local": {"config": "ccd_<set>", "local": {"config": "ccd_<set>_local"}},
                },
                "detectors": {
                    "own": "own.yaml",
                    "class": "my.Detector",
                    "both": {"config": "padim_folder", "model": "my.Detector"},
                    "options": {
                        "config": "padim_<set>",
                        "options": {"model": {"layers": [1, 2], "encoder": {"name": None}}, "data.batch_size": 4},
                    },
                },
            }
        )
    )
    encoders, detectors = study.encoders, {name: one.method for name, one in study.detectors.items()}
    assert encoders["imagenet"].weights == "imagenet"
    assert (encoders["file"].weights, encoders["file"].network) == ("weights.pth", "resnet50")
    assert encoders["ccd"].pretraining is not None
    assert encoders["local"].pretraining == Method("ccd_<set>")
    assert encoders["local"].local == Method("ccd_<set>_local")
    assert detectors["own"].config == "own.yaml"
    assert detectors["class"] == Method(None, "my.Detector")
    assert detectors["both"].model == "my.Detector"
    assert detectors["options"].options == {
        "model.layers": "[1, 2]",
        "model.encoder.name": "null",
        "data.batch_size": "4",
    }
    assert study.compare == tuple((name, "imagenet") for name in encoders if name != "imagenet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sedes": [0]}, "sedes: there is no key 'sedes'; did you mean seeds?"),
        ({"sets": None}, "sets: this key is missing"),
        ({"sets": {}}, "sets: give at least one"),
        ({"sets": ["a"]}, "sets: expected names with values"),
        ({"sets": {"a/b": "images"}}, "sets.a/b: give a name of letters"),
        ({"sets": {"..": "images"}}, "sets...: give a name of letters"),
        ({"sets": {"a": {"data": "LAG"}}}, "sets.a.root: this key is missing"),
        ({"sets": {"a": {"root": 3}}}, "sets.a.root: expected text"),
        ({"sets": {"a": {"root": "x", "counts": [1, 2]}}}, "sets.a.counts: expected three numbers"),
        ({"sets": {"a": {"root": "x", "counts": [1, 2, "3"]}}}, "sets.a.counts: expected three numbers"),
        ({"encoders": {"ccd": "ccd_foldr"}}, "encoders.ccd.weights: there is no file ccd_foldr; weights are null"),
        (
            {"encoders": {"ccd": {"config": "ccd_foldr"}}},
            "encoders.ccd: there is no config ccd_foldr; did you mean ccd_f",
        ),
        (
            {"encoders": {"ccd": {"confg": "ccd_folder"}}},
            "encoders.ccd.confg: there is no key 'confg'; did you mean config",
        ),
        (
            {"encoders": {"a": {"config": "ccd_folder", "from": "b"}, "b": "ccd_folder"}},
            "encoders.a.from: 'b' is no pretrained encoder above this one; there is none",
        ),
        (
            {"encoders": {"a": "ccd_folder", "b": "imagenet", "c": {"config": "ccd_folder", "from": "b"}}},
            "encoders.c.from: 'b' is no pretrained encoder above this one; there are a",
        ),
        ({"encoders": {"ccd": {"local": "ccd_folder"}}}, "encoders.ccd: give a config or, as model, a class"),
        (
            {"encoders": {"ccd": {"weights": "imagenet", "config": "ccd_folder"}}},
            "encoders.ccd.config: weights that are given are not pretrained",
        ),
        (
            {"detectors": {"padim": "padim_foldr"}},
            "detectors.padim: there is no config padim_foldr; did you mean padim_f",
        ),
        ({"detectors": {"padim": "none.yaml"}}, "detectors.padim: there is no config none.yaml; "),
        (
            {"detectors": {"pretraining": "padim_folder"}},
            "detectors.pretraining: this name is that of the encoder's own",
        ),
        ({"detectors": {"padim": {"options": {}}}}, "detectors.padim: give a config or, as model, a class"),
        ({"options": {"data.root": "x"}}, "options.data.root: the study itself sets this option"),
        ({"options": {"trainer": {"logger": {"name": "x"}}}}, "options.trainer.logger.name: the study itself sets"),
        ({"options": {"size": 3}}, "options.size: an option's name begins with data., model. or trainer."),
        ({"options": {"model": "PaDiM"}}, "options.model: an option's name begins with"),
        ({"seeds": []}, "seeds: expected whole numbers"),
        ({"seeds": [0, 1, 0]}, "seeds: 0 is given twice"),
        ({"seeds": [-1]}, "seeds: expected whole numbers from 0"),
        ({"seeds": [True]}, "seeds: expected a list of whole numbers"),
        ({"compare": [["untrained"]]}, "compare.0: give a list of pairs"),
        ({"compare": ["untrained", "x"]}, "compare.0: give a list of pairs"),
        ({"compare": [["untrained", "ccd"]]}, "compare.0: there is no encoder 'ccd'; there are untrained."),
        ({"metrics": [3]}, "metrics: expected names"),
        ({"published": [{"source": "x"}]}, "published.0.protocol: this key is missing"),
        (
            {"published": [{"source": "x", "protocol": "y", "figures": [{"set": "b", "value": 1}]}]},
            "published.0.figures.0.set: there is no data set 'b'",
        ),
        (
            {"published": [{"source": "x", "protocol": "y", "figures": [{"set": "a", "value": "high"}]}]},
            "published.0.figures.0.value: give a number",
        ),
        ({"output": 3}, "output: expected text"),
    ],
)
def test_each_mistake_is_one_sentence_with_file_and_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        read_study(write(SMALL | change))
    assert str(error.value).startswith(f"mine.yaml: {message}")
    assert "\n" not in str(error.value)


def test_files_that_are_no_studies_are_refused() -> None:
    for content, message in (
        ("", "mine.yaml: it is empty, but must hold sets, "),
        ("sets: {a: b\n", "mine.yaml, line 2: "),
        ("sets:\n  a: x\n  a: y\n", "mine.yaml, line 3: 'a' is given twice."),
        ("detectors: {p: x}\nseeds: 0\ndetectors: {}\n", "mine.yaml, line 3: 'detectors' is given twice."),
        ("sets: !!python/object:os.system {}\n", "mine.yaml, line 1: "),
    ):
        with pytest.raises(UserError) as error:
            read_study(write(content))
        assert str(error.value).startswith(message)
    with pytest.raises(UserError, match=r"publishd: there is no such study file, nor .*; did you mean published\?"):
        find_study("publishd")
    assert find_study("published").name == "published.yaml"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["mine.yaml"],
            "mine.yaml: sets.a: data/images: no such folder. Give the folder that holds images with --data_root",
        ),
        (["mine.yaml", "--data_root", "x"], "mine.yaml: sets.a: x/images: no such folder."),
        (["mine.yaml", "--root", "b=x"], "--root b=DIR: mine.yaml has no data set 'b', but a."),
        (["mine.yaml", "--root", "a=there", "--detectors", "igd"], "--detectors igd: mine.yaml has padim."),
        (["mine.yaml", "--root", "a=there", "--seeds", "1"], "--seeds 1: mine.yaml has 0."),
        (["mine.yaml", "--gpus", "2"], "ccd study has no option --gpus; ccd study --help lists them."),
        (["none"], "none: there is no such study file"),
    ],
)
def test_mistakes_on_the_command_line_are_reported(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("there").mkdir()
    write(SMALL)
    assert main(["study", *words]) == 2
    assert capsys.readouterr().err.startswith(f"ccd: {message}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"detectors": {"p": {"config": "padim_folder", "options": {"model.quantil": 1}}}},
            "detectors.p: There is no op",
        ),
        ({"options": {"data.sise": 64}}, "detectors.padim: There is no option 'data.sise'; did you mean 'size'?"),
        ({"options": {"data.size": "big"}}, "detectors.padim: data.size is big"),
        (
            {"detectors": {"p": {"config": "padim_folder", "model": "PaDim"}}},
            "detectors.p: model: there is no class PaDim",
        ),
        (
            {"sets": {"a": {"root": "x", "data": "Foldr"}}},
            "detectors.padim: data: there is no class Foldr; did you mean Fo",
        ),
        (
            {"encoders": {"c": {"config": "ccd_folder", "options": {"data.views.sizes": 3}}}},
            "encoders.c: There is no option 'data.views.sizes'",
        ),
        (
            {"encoders": {"c": "ccd_folder"}, "detectors": {"igd": "igd_folder"}},
            "encoders.c.local: this key is missing: igd has an encoder for windows too",
        ),
        ({"detectors": {"p": "padim_<set>"}}, "detectors.p: there is no config padim_a; did you mean padim_lag?"),
    ],
)
def test_options_and_classes_are_checked_before_anything_runs(
    change: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data/images").mkdir(parents=True)
    write(SMALL | change)
    assert main(["study", "mine.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ccd: mine.yaml: {message}")
    assert error.count("\n") == 1
    assert not Path("studies").exists()
