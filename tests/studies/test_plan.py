"""From a study to its runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from ccd_lightning import shipped
from ccd_lightning.cli import main
from ccd_lightning.errors import UserError
from ccd_lightning.studies.plan import Step, steps
from ccd_lightning.studies.study_file import find_study, read_study

COUNTS = {  # sets, encoders of which some are pretrained, detectors, seeds
    "bmad": (6, 5, 3, 3, 3),
    "medianomaly": (7, 5, 3, 3, 3),
    "published": (3, 5, 3, 4, 3),
    "real": (3, 5, 3, 4, 5),
    "synthetic": (1, 4, 3, 3, 3),
}


def plan(content: dict[str, Any], place: Path) -> list[Step]:
    file = place / "mine.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    study = read_study(file)
    return steps(study, {name: Path("data", data.root) for name, data in study.sets.items()})


def test_every_shipped_study_is_counted() -> None:
    assert set(COUNTS) == set(shipped.study_names())


@pytest.mark.parametrize("name", COUNTS)
def test_every_shipped_study_expands(name: str) -> None:
    sets, encoders, pretrained, detectors, seeds = COUNTS[name]
    study = read_study(find_study(name))
    made = steps(study, {data: Path(data) for data in study.sets})
    assert sum(step.is_cell for step in made) == sets * encoders * detectors * seeds
    branches = 2 if "igd" in study.detectors else 1
    assert sum(not step.is_cell for step in made) == sets * pretrained * branches * seeds
    assert len({step.folder for step in made}) == len(made)
    assert all(made.index(need) < index for index, step in enumerate(made) for need in step.needs)
    assert [step.seed for step in made] == sorted(step.seed for step in made)
    if name != "published":
        assert not any(Path(data.root).is_absolute() for data in study.sets.values())


@pytest.mark.parametrize("name", COUNTS)
def test_every_shipped_study_s_options_are_known(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = main(["study", name, "--dry", "--seeds", "0", "--data_root", "nowhere"])
    message = capsys.readouterr()
    assert "runs to do, 0 done" in message.out
    assert (code, "no such folder" in message.err) == ((0, False) if name == "synthetic" else (2, True))


def test_the_published_study_uses_each_set_s_own_configs() -> None:
    study = read_study(find_study("published"))
    made = steps(study, {data: Path(data) for data in study.sets})
    used = Counter((step.data, Path(step.config).stem) for step in made if step.seed == 0)
    for data in ("kvasir", "lag", "liu"):
        assert used[data, f"ccd_{data}"] == 2  # SimCLR and CCD
        assert used[data, f"pmsacl_{data}"] == 1
        assert used[data, f"ccd_{data}_local"] == 3
        assert used[data, f"padim_{data}"] == used[data, f"igd_{data}"] == 5
    igd = next(step for step in made if step.kind == ("lag", "ccd", "igd"))
    assert [need.detector for need in igd.needs] == ["pretraining", "pretraining_local"]
    assert [need.encoder for need in igd.needs] == ["ccd", "ccd"]


def printed(capsys: pytest.CaptureFixture[str], words: list[str]) -> dict[str, Any]:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*words, "--print_config"])
    content: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return content


def test_the_published_study_changes_none_of_the_published_settings(capsys: pytest.CaptureFixture[str]) -> None:
    study = read_study(find_study("published"))
    made = {step.kind: step for step in steps(study, {data: Path(data) for data in study.sets})}
    configs = {"pretraining": "ccd_{}", "pretraining_local": "ccd_{}_local", "padim": "padim_{}", "igd": "igd_{}"}
    for data, run in (("kvasir", "pretraining"), ("lag", "pretraining_local"), ("lag", "padim"), ("liu", "igd")):
        step = made[data, "ccd", run]
        plain = ["fit", "--config", configs[run].format(data), "--data.root", data, "--seed_everything", str(step.seed)]
        own, expected = printed(capsys, step.argv), printed(capsys, plain)
        for option in ("encoder", "local_encoder") if step.needs else ():
            if option in own["model"]["init_args"]:
                weights = [content["model"]["init_args"][option].pop("weights") for content in (own, expected)]
                assert weights[0].startswith(f"studies/published/runs/{data}/ccd/pretraining")
                assert own["model"]["init_args"][option].pop("digest") == "None"  # as a command line says it
                assert expected["model"]["init_args"][option].pop("digest") is None
        assert own == expected


SMALL: dict[str, Any] = {
    "sets": {"lag": {"root": "images", "data": "LAG", "options": {"data.size": 32, "data.batch_size": 3}}},
    "encoders": {
        "imagenet": "imagenet",
        "ccd": {"config": "ccd_folder", "local": "ccd_folder_local", "network": "resnet50"},
    },
    "detectors": {"padim": {"config": "padim_folder", "options": {"data.batch_size": 2}}, "igd": "igd_folder"},
    "network": "resnet34",
    "options": {"data.size": 16, "data.validation": 0.1},
}


def test_commands_of_a_plan(tmp_path: Path) -> None:
    made = {step.kind[1:]: step for step in plan(SMALL, tmp_path)}
    padim = made["imagenet", "padim"]
    assert padim.argv[:2] == ["fit", "--config"]
    assert padim.argv[3:] == [
        "--data=LAG",
        "--seed_everything=0",
        "--data.root=data/images",
        "--model.encoder.name=resnet34",
        "--model.encoder.weights=imagenet",
        "--data.size=32",  # the set's, not the study's
        "--data.validation=0.1",
        "--data.batch_size=2",  # the detector's, not the set's
    ]
    igd, pretraining = made["ccd", "igd"], made["ccd", "pretraining"]
    assert pretraining.options["model.encoder.name"] == "resnet50"
    assert "model.encoder.weights" not in pretraining.options
    assert igd.options["model.encoder.weights"] == str(pretraining.folder)
    assert igd.options["model.local_encoder.weights"] == str(made["ccd", "pretraining_local"].folder)
    assert igd.options["model.local_encoder.name"] == "resnet50"
    assert made["imagenet", "igd"].options["model.local_encoder.weights"] == "imagenet"
    assert made["ccd", "padim"].needs == (pretraining,)


def test_pretraining_may_start_from_another_encoder(tmp_path: Path) -> None:
    encoders = SMALL["encoders"] | {"pmsacl": {"config": "pmsacl_folder", "local": "ccd_folder_local", "from": "ccd"}}
    made = {step.kind[1:]: step for step in plan(SMALL | {"encoders": encoders}, tmp_path)}
    for branch in ("pretraining", "pretraining_local"):
        first, second = made["ccd", branch], made["pmsacl", branch]
        assert second.needs == (first,)
        assert second.options["model.encoder.weights"] == str(first.folder)
    assert made["pmsacl", "padim"].needs == (made["pmsacl", "pretraining"],)
    before = made["pmsacl", "padim"].digest
    encoders["ccd"] = encoders["ccd"] | {"options": {"trainer.max_epochs": 3}}
    made = {step.kind[1:]: step for step in plan(SMALL | {"encoders": encoders}, tmp_path)}
    assert made["pmsacl", "padim"].digest != before
    del encoders["ccd"]["local"]
    with pytest.raises(UserError, match=r"encoders\.ccd\.local: this key is missing"):
        plan(SMALL | {"encoders": encoders}, tmp_path)


def test_the_local_branch_is_pretrained_only_where_a_detector_needs_it(tmp_path: Path) -> None:
    one = {"detectors": {"padim": "padim_folder"}}
    assert [step.detector for step in plan(SMALL | one, tmp_path)] == ["padim", "pretraining", "padim"]


def test_classes_tell_whether_they_have_two_encoders(tmp_path: Path) -> None:
    classes = {
        "a": {"model": "ccd_lightning.modules.igd.IGD"},
        "b": {"config": "padim_folder", "model": "IGD"},
        "c": "x.Y",
    }
    made = {step.kind[1:]: step for step in plan(SMALL | {"detectors": classes}, tmp_path)}
    assert [len(made["ccd", name].needs) for name in classes] == [2, 2, 1]
    assert made["ccd", "a"].argv[:3] == ["fit", "--model=ccd_lightning.modules.igd.IGD", "--data=LAG"]


def digests(content: dict[str, Any], place: Path) -> dict[tuple[str, ...], str]:
    return {step.kind[1:]: step.digest for step in plan(content, place)}


def test_digests_change_with_what_decides_a_result(tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text("{lr: 1}")
    (tmp_path / "own.yaml").write_text("model: {class_path: PaDiM, init_args: part.yaml}\n")
    content = SMALL | {"detectors": {"padim": "own.yaml", "other": "padim_folder"}}
    before = digests(content, tmp_path)

    def changed(content: dict[str, Any]) -> set[tuple[str, ...]]:
        after = digests(content, tmp_path)
        return {kind for kind, digest in before.items() if after[kind] != digest}

    machine = {"data.num_workers": 3, "trainer.accelerator": "gpu", "trainer.devices": 2, "data.cache_dir": "x"}
    moved = {"sets": {"lag": SMALL["sets"]["lag"] | {"root": "elsewhere"}}, "output": "elsewhere"}
    assert not changed(content | moved | {"options": content["options"] | machine})
    assert changed(content | {"options": {"data.size": 16}}) == set(before)
    ccd = {"ccd": SMALL["encoders"]["ccd"] | {"options": {"trainer.max_epochs": 3}}}
    own = {("ccd", "pretraining"), ("ccd", "padim"), ("ccd", "other")}
    assert changed(content | {"encoders": SMALL["encoders"] | ccd}) == own
    (tmp_path / "own.yaml").write_text("# a comment\nmodel: {class_path: PaDiM, init_args: part.yaml}\n")
    assert not changed(content)
    (tmp_path / "part.yaml").write_text("{lr: 2}")
    assert changed(content) == {("imagenet", "padim"), ("ccd", "padim")}
