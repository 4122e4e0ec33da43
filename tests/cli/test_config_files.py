"""Shipped configs by name, what a run is called, and which checkpoints and loggers come from code."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ccd_lightning import shipped
from ccd_lightning.cli import main
from ccd_lightning.cli.config_files import default_logger, find_configs, run_name
from tests.runs import CONFIGS

BEST, LAST = ("best", "val/loss"), ("last", None)
CHECKPOINT = "lightning.pytorch.callbacks.ModelCheckpoint"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without configs."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as stop:
        main(["fit", *words, "--print_config"])
    assert stop.value.code == 0
    content: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return content


def write(name: str, **content: Any) -> str:
    Path(name).write_text(yaml.safe_dump(content))
    return name


def checkpoints(content: dict[str, Any]) -> list[tuple[Any, Any]]:
    """File names and monitors of the callbacks that save checkpoints."""
    specs = [spec for spec in content["trainer"]["callbacks"] or [] if spec["class_path"] == CHECKPOINT]
    return [(spec["init_args"]["filename"], spec["init_args"]["monitor"]) for spec in specs]


def test_names_are_those_of_the_shipped_files() -> None:
    assert set(shipped.names()) == {path.stem for path in CONFIGS.glob("*.yaml")} | {
        f"trainer/{path.stem}" for path in CONFIGS.glob("trainer/*.yaml")
    }
    for name in shipped.names():
        assert shipped.find(name) == CONFIGS / f"{name}.yaml"
    for other in ("", "published/ccd", "../configs/ccd_lag", "ccd_lag.yaml"):
        assert shipped.find(other) is None


@pytest.mark.parametrize("words", [["--config", "ccd_lag"], ["--config=ccd_lag"], ["-c", "ccd_lag"]])
def test_a_name_works_from_any_folder(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    named = printed(capsys, *words, "--config", "trainer/gpu")
    files = ["--config", str(CONFIGS / "ccd_lag.yaml"), "--config", str(CONFIGS / "trainer/gpu.yaml")]
    assert named == printed(capsys, *files)
    assert (named["trainer"]["accelerator"], named["trainer"]["logger"]["init_args"]["name"]) == ("gpu", "ccd_lag")


def test_a_file_goes_before_a_shipped_config_of_its_name() -> None:
    write("ccd_lag", seed_everything=1)
    Path("ccd_liu").mkdir()
    found = find_configs(["fit", "--config", "ccd_lag", "--config", "ccd_liu"])
    assert found == ["fit", "--config", "ccd_lag", "--config", str(CONFIGS / "ccd_liu.yaml")]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ccd_kvasr", "did you mean ccd_kvasir"),
        ("configs/ccd_lag.yaml", "did you mean ccd_lag?"),
        ("gpu", "did you mean trainer/gpu?"),
        ("nonsense.yaml", "nor a shipped config. Give a file, or one of "),
    ],
)
def test_a_wrong_name_is_one_sentence(name: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", name]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"ccd: {name}: ")
    assert hint in message
    assert ", ".join(shipped.names()) in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("config", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_a_printed_config_needs_no_other_file(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = printed(capsys, "--config", config, "--data.root", "somewhere")
    assert printed(capsys, "--config", write("mine.yaml", **content)) == content
    assert "published/" not in yaml.safe_dump(content)


def test_content_in_the_place_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    content = printed(capsys, "--config", "{model: PaDiM, data: LAG}")
    assert content["data"]["class_path"] == "ccd_lightning.data.datasets.LAG"
    assert "name" not in default_logger(["fit", "--config", "{model: PaDiM, data: LAG}"])["init_args"]


def test_a_run_is_named_after_the_last_config_that_says_what_to_train() -> None:
    gpu = write("gpu.yaml", trainer={"accelerator": "gpu"})
    model = write("my.model.yaml", model={"init_args": {"temperature": 0.1}})
    assert run_name(["fit", "--config", model, "--config", gpu]) == "my.model"
    assert run_name(["fit", f"--config={write('a.yaml', data='LAG')}", "-c", model, gpu]) == "my.model"
    assert run_name(["fit", "--config", model, "--config", "a.yaml"]) == "a"
    assert run_name(["fit", "--config", gpu]) is None
    assert run_name(["fit", "--model", "CCD"]) is None


def test_the_logger_is_changed_as_if_the_config_named_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--trainer.logger.init_args.version", "v3", "--trainer.logger.save_dir", "out"]
    logger = printed(capsys, "--config", "padim_lag", *words)["trainer"]["logger"]["init_args"]
    assert (logger["save_dir"], logger["name"], logger["version"]) == ("out", "padim_lag", "v3")
    assert logger["default_hp_metric"] is False
    assert printed(capsys, "--config", "padim_lag", "--trainer.logger", "false")["trainer"]["logger"] is False
    other = printed(capsys, "--config", "padim_lag", "--trainer.logger", "CSVLogger")["trainer"]["logger"]
    assert other["class_path"] == "lightning.pytorch.loggers.CSVLogger"
    assert (other["init_args"]["save_dir"], other["init_args"]["name"]) == ("runs", "padim_lag")


@pytest.mark.parametrize(
    ("config", "kept"), [("ccd_lag", [BEST, LAST]), ("padim_lag", [("best", None)]), ("igd_lag", [LAST])]
)
def test_each_kind_of_model_keeps_its_checkpoints(
    config: str, kept: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert checkpoints(printed(capsys, "--config", config)) == kept


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ({"filename": "best", "monitor": "val/alignment"}, [LAST, ("best", "val/alignment")]),
        ({"filename": "{epoch}", "every_n_epochs": 10}, [BEST, LAST, ("{epoch}", None)]),
        ({"filename": "{step}"}, [BEST, ("{step}", None)]),  # Lightning refuses two without a monitor and an interval
        ({"filename": "{epoch}", "monitor": "val/loss"}, [LAST, ("{epoch}", "val/loss")]),
    ],
)
def test_checkpoints_of_ones_own(
    arguments: dict[str, Any], kept: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    own = write("own.yaml", trainer={"callbacks": [{"class_path": "ModelCheckpoint", "init_args": arguments}]})
    assert checkpoints(printed(capsys, "--config", "ccd_lag", "--config", own)) == kept


def test_callbacks_of_ones_own_are_added_and_checkpoints_can_be_turned_off(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}
    own = write("own.yaml", trainer={"callbacks": [stop]})
    content = printed(capsys, "--config", "ccd_lag", "--config", own)
    assert checkpoints(content) == [BEST, LAST]
    assert content["trainer"]["callbacks"][-1]["class_path"].endswith("EarlyStopping")
    added = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"]
    assert printed(capsys, "--config", "ccd_lag", *added)["trainer"] == content["trainer"]
    without = printed(capsys, "--config", "ccd_lag", "--config", own, "--trainer.enable_checkpointing", "false")
    assert checkpoints(without) == []
