"""A checkpoint from someone else runs none of its own code, unless it is trusted."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ccd_lightning import load
from ccd_lightning.checkpoints import CONFIG_KEY, read_checkpoint
from ccd_lightning.cli import main
from ccd_lightning.cli.relocation import ORIGIN_KEY
from ccd_lightning.cli.trust import embedded_config
from ccd_lightning.errors import UserError
from tests.runs import CCD, PADIM

BEST = Path("runs/padim_synthetic/latest/checkpoints/best.ckpt")
Change = Callable[[dict[str, Any]], object]
MODULE = """
from pathlib import Path
from lightning.pytorch import Callback
from ccd_lightning.modules.padim import PaDiM
Path(__file__).with_name("touched").touch()  # wherever the parser is at that moment
class Payload(Callback): ...
class Mine(PaDiM): ...
"""
POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "touched"]}}
TOUCH = {"class_path": "payload.Payload"}


@pytest.fixture
def place(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace, with a module that leaves a file behind when it is imported."""
    Path("payload.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(workspace))
    sys.modules.pop("payload", None)
    return workspace


def doctored(change: Change, source: Path = BEST) -> Path:
    """A checkpoint whose config was changed."""
    content = read_checkpoint(source)
    config = yaml.safe_load(content[CONFIG_KEY])
    change(config)
    content[CONFIG_KEY] = yaml.safe_dump(config)
    file = Path("received.ckpt")
    torch.save(content, file)
    return file


def put(path: str, value: Any) -> Change:
    """Sets a key, by its path."""

    def change(config: dict[str, Any]) -> None:
        *outer, last = path.split("/")
        for part in outer:
            config = config[part]
        config[last] = value

    return change


LAMBDA = {"class_path": "torchvision.transforms.Lambda", "init_args": {"lambd": "os.abort"}}
PRETEXT = "ccd_lightning.transforms.pretext.PretextViews"
LOGGER: dict[str, Any] = {
    "class_path": "lightning.pytorch.loggers.CSVLogger",
    "init_args": {"save_dir": "http://127.0.0.1:9/x"},
}
ATTACKS: dict[str, tuple[Change, str]] = {
    "callback": (put("trainer/callbacks", [TOUCH]), "payload.Payload"),
    "callback in a list of other things": (
        lambda config: config["trainer"]["callbacks"].append({"class_path": "m.C", "init_args": {"a": POPEN}}),
        "m.C",
    ),
    "callback's argument": (
        lambda config: config["trainer"]["callbacks"][0]["init_args"].update(filename=POPEN),
        "subprocess.Popen",
    ),
    "callback as text": (put("trainer/callbacks", "payload.Payload"), "payload.Payload"),
    "callback as text in a list": (put("trainer/callbacks", ["payload.Payload"]), "payload.Payload"),
    "logger": (put("trainer/logger", TOUCH), "payload.Payload"),
    "logger as text": (put("trainer/logger", "payload.Payload"), "payload.Payload"),
    "strategy": (put("trainer/strategy", TOUCH), "payload.Payload"),
    "profiler": (put("trainer/profiler", TOUCH), "payload.Payload"),
    "plugins": (put("trainer/plugins", [TOUCH]), "payload.Payload"),
    "precision": (put("trainer/precision", TOUCH), "payload.Payload"),
    "optimizer": (put("optimizer", TOUCH), "payload.Payload"),
    "scheduler": (put("lr_scheduler", TOUCH), "payload.Payload"),
    "views": (put("data/init_args/views", LAMBDA), "torchvision.transforms.Lambda"),
    "views as text": (put("data/init_args/views", "payload.Payload"), "payload.Payload"),
    "views as YAML": (put("data/init_args/views", yaml.safe_dump(TOUCH)), "payload.Payload"),
    "views as a function": (put("data/init_args/views", "os.system"), "os.system"),
    "views as a short name": (put("data/init_args/views", "Lambda"), "Lambda"),
    "views as a file": (put("data/init_args/views", "evil.yaml"), "evil.yaml"),
    "family": (
        put("data/init_args/views", {"class_path": PRETEXT, "init_args": {"family": TOUCH}}),
        "payload.Payload",
    ),
    "family as text": (
        put("data/init_args/views", {"class_path": PRETEXT, "init_args": {"family": "payload.Payload"}}),
        "payload.Payload",
    ),
    "arguments that are no mapping": (
        put("data/init_args/views", {"class_path": PRETEXT, "init_args": "family: payload.Payload"}),
        "payload.Payload",
    ),
    "dict_kwargs": (
        put("data/init_args/views", {"class_path": PRETEXT, "dict_kwargs": {"family": TOUCH}}),
        "dict_kwargs",
    ),
    "data": (put("data", TOUCH), "payload.Payload"),
    "data without a class": (put("data", {"init_args": {"root": "x"}}), "None"),
    "model": (put("model/class_path", "payload.Mine"), "payload.Mine"),
    "model's module": (put("model/class_path", "ccd_lightning.modules.padim.torch.os.system"), "torch.os.system"),
    "model's short name": (put("model/class_path", "PaDiM"), "PaDiM"),
    "model's class is a mapping": (put("model/class_path", {"class_path": "payload.Mine"}), "payload.Mine"),
    "encoder": (put("model/init_args/encoder", TOUCH), "payload.Payload"),
    "encoder as a file": (put("model/init_args/encoder", "evil.yaml"), "evil.yaml"),
    "encoder's argument": (put("model/init_args/encoder/weights", TOUCH), "payload.Payload"),
    "number": (put("model/init_args/channels", "payload.Payload"), "payload.Payload"),
    "layers": (put("model/init_args/features", {"layers": [1, TOUCH]}), "payload.Payload"),
    "optimizer of the model": (put("model/init_args/optimizer", TOUCH), "payload.Payload"),
    "dotted key": (put("data/init_args/views.class_path", "payload.Payload"), "views.class_path"),
    "dotted key with a mapping": (put("data/init_args/views.init_args", {"a": 1}), "views.init_args"),
    "seed": (put("seed_everything", TOUCH), "payload.Payload"),
    "argument of any type": (
        put("model/init_args/optimizer", {"class_path": "torch.optim.Optimizer", "init_args": {"defaults": TOUCH}}),
        "torch.optim.Optimizer",
    ),
    "logger in another place": (put("model/init_args/optimizer", LOGGER), "loggers.CSVLogger"),
}


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints that ends with exit code 2, in two sentences at most."""
    capsys.readouterr()
    assert main(words) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("ccd: ")
    assert "Traceback" not in message
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_that_a_checkpoint_names_is_imported(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, named = ATTACKS[name]
    received = doctored(change)
    for command in ("test", "validate", "predict") if name in ("callback", "views", "model") else ("test",):
        message = refusal([command, "--ckpt_path", str(received)], capsys)
        assert str(received) in message
        assert named in message
        assert "--trust" in message
    assert not Path("touched").exists()
    assert "payload" not in sys.modules


def test_a_scheduler_calls_no_function_of_a_checkpoint(place: Path) -> None:
    scheduler = {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": "os.abort"}}
    received = doctored(put("lr_scheduler", scheduler))
    assert main(["test", "--ckpt_path", str(received)]) == 0  # which needs no scheduler
    config = embedded_config(read_checkpoint(received)[CONFIG_KEY], received)
    assert "lr_scheduler" not in config


@pytest.mark.parametrize(
    "text", ["a: [", "&a [*a]", "text", "[]", "{model: 1, data: 2}", 3, None, "!!python/name:os.x 1"]
)
def test_a_malformed_config_in_a_checkpoint_is_refused(
    text: Any, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = read_checkpoint(BEST)
    torch.save(content | {CONFIG_KEY: text}, "received.ckpt")
    assert "received.ckpt: the config in it cannot be read" in refusal(["test", "--ckpt_path", "received.ckpt"], capsys)


def test_a_checkpoint_does_not_say_where_to_write(place: Path) -> None:
    def elsewhere(config: dict[str, Any]) -> None:
        config["trainer"] |= {"default_root_dir": "stolen", "profiler": "simple", "max_time": "0:0:0:1"}
        config["trainer"]["callbacks"][0]["init_args"]["dirpath"] = "stolen"
        config["trainer"]["logger"]["init_args"]["save_dir"] = "stolen"
        config["data"]["init_args"]["cache_dir"] = "stolen"

    received = doctored(elsewhere)
    before = {path.name for path in Path().iterdir()}
    assert main(["test", "--ckpt_path", str(received)]) == 0
    made = {path.name for path in Path().iterdir()} - before
    assert "stolen" not in made
    config = embedded_config(read_checkpoint(received)[CONFIG_KEY], received)
    assert "stolen" not in yaml.safe_dump(config)
    assert not {"default_root_dir", "profiler", "max_time", "logger"} & config["trainer"].keys()


def test_images_are_not_made_where_a_checkpoint_wants(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "somewhere else"
    received = doctored(put("data/init_args/root", str(target)))
    assert f"images to be made in {target}" in refusal(["test", "--ckpt_path", str(received)], capsys)
    assert not target.exists()
    assert main(["test", "--ckpt_path", str(received), "--data.root", "data/synthetic_colonoscopy"]) == 0


def test_a_config_that_fit_wrote_passes(workspace: Path) -> None:
    for run in Path("runs").glob("*/version_0"):
        file = run / "checkpoints/last.ckpt"
        file = file if file.is_file() else run / "checkpoints/best.ckpt"
        before = yaml.safe_load(read_checkpoint(file)[CONFIG_KEY])
        config = embedded_config(yaml.safe_dump(before), file)
        assert config["model"] == before["model"]
        assert config["data"] == before["data"]
        assert [spec["class_path"] for spec in config["trainer"]["callbacks"]] == [
            spec["class_path"] for spec in before["trainer"]["callbacks"]
        ]


def test_a_users_own_classes_run_when_they_are_trusted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    received = doctored(put("trainer/callbacks", [TOUCH]))
    words = ["test", "--trust", "--ckpt_path", str(received)]
    assert main(words) == 0
    assert Path("touched").is_file()


def test_lightnings_own_callbacks_and_loggers_need_no_trust(place: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["trainer"]["callbacks"].append({"class_path": "lightning.pytorch.callbacks.RichProgressBar"})
        arguments = {"name": "v1.2", "save_dir": "../my.runs"}
        config["trainer"]["logger"] = {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": arguments}

    assert main(["test", "--ckpt_path", str(doctored(change))]) == 0


def test_options_of_the_user_may_name_any_class(place: Path) -> None:
    assert main(["test", "--trainer.callbacks+=payload.Payload"]) == 0
    assert Path("touched").is_file()


@pytest.mark.parametrize("name", ["detectors.Mine", "os.system", "torch.nn.Linear"])
def test_load_and_export_import_nothing(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("payload.py").rename("detectors.py")  # which no other test imports
    content = read_checkpoint(BEST)
    content["hyper_parameters"]["_class_path"] = name
    torch.save(content, "received.ckpt")
    message = refusal(["export", "--ckpt_path", "received.ckpt"], capsys)
    assert message.startswith(f"ccd: received.ckpt: the checkpoint names the class {name}")
    assert "--trust" in message
    with pytest.raises(UserError, match=name):
        load("received.ckpt")
    message = refusal([*PADIM, "--ckpt_path", "received.ckpt"], capsys)
    assert f"received.ckpt: the checkpoint is of {name}" in message
    assert not Path("touched").exists()
    if name == "detectors.Mine":
        assert type(load("received.ckpt", trust=True)).__name__ == "Mine"
        assert type(load("received.ckpt")).__name__ == "Mine"  # which is imported now
    else:
        with pytest.raises(UserError, match="not of a detector"):
            load("received.ckpt", trust=True)


@pytest.mark.parametrize("settings", [{"no_such": 1}, {"channels": "many"}, {"features": {"layers": POPEN}}])
def test_settings_in_a_checkpoint_that_do_not_fit_are_refused(settings: dict[str, Any], place: Path) -> None:
    content = read_checkpoint(BEST)
    content["hyper_parameters"] |= settings
    torch.save(content, "received.ckpt")
    with pytest.raises(UserError, match=r"received\.ckpt|model\."):
        load("received.ckpt")


@pytest.mark.parametrize("command", ["test", "validate", "predict", "export", "fit"])
def test_no_pickled_code_runs(command: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Touch:
        def __reduce__(self) -> Any:
            return Path.touch, (Path("touched"),)

    content = read_checkpoint(BEST)
    torch.save(content | {"extra": Touch()}, "received.ckpt")
    words = [*(CCD if command == "fit" else [command]), "--ckpt_path", "received.ckpt"]
    assert "received.ckpt: not a readable checkpoint" in refusal(words, capsys)
    assert not Path("touched").exists()


@pytest.mark.parametrize("value", ["!!pairs [x: 1]", "!!omap [x: 1]", "!!set {x}", "!!binary eA==", "2020-02-02"])
def test_what_yaml_tags_make_is_refused(value: str) -> None:
    """Tuples, for instance, would be written as lists, and classes in them made, without having been looked at."""
    text = f"{{model: {{class_path: a, init_args: {{b: [{value}]}}}}, data: {{}}}}"
    with pytest.raises(UserError, match=r"x\.ckpt: the config in it cannot be read \(it holds a \w+\)"):
        embedded_config(text, Path("x.ckpt"))


def test_a_config_that_unfolds_is_refused() -> None:
    levels = "".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12))
    with pytest.raises(UserError, match="more than 100000 values"):
        embedded_config(f"model: {{}}\ndata: {{}}\na0: &a0 [1]\n{levels}", Path("x.ckpt"))


def test_a_name_is_shown_without_control_characters() -> None:
    text = yaml.safe_dump({"model": {"class_path": "a\x1b[31m"}, "data": {}})
    with pytest.raises(UserError) as refused:
        embedded_config(text, Path("x.ckpt"))
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("state", ["local://{}", "{}", "{}/sub", "local::{}"])
def test_resuming_removes_nothing_that_a_checkpoint_names(
    state: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = tmp_path / "victim"
    (victim / "sub").mkdir(parents=True)
    (victim / "mine.ckpt").touch()
    content = read_checkpoint(Path("runs/ccd_synthetic/latest/checkpoints/last.ckpt"))
    for callback in content["callbacks"].values():
        if "best_model_path" in callback:
            callback["best_model_path"] = state.format(victim)
    torch.save(content, "received.ckpt")
    assert main([*CCD, "--ckpt_path", "received.ckpt", "--trainer.max_epochs=3"]) == 0
    assert {path.name for path in victim.iterdir()} == {"sub", "mine.ckpt"}


def test_resuming_a_run_from_elsewhere_leaves_the_own_run_of_its_name(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    received = shutil.copytree("runs/ccd_synthetic/version_0", tmp_path / "received/version_0")
    own = {path: path.read_bytes() for path in Path("runs/ccd_synthetic/version_0").rglob("*") if path.is_file()}
    message = refusal([*CCD, "--ckpt_path", str(received), "--trainer.max_epochs=3"], capsys)
    assert "this folder already contains another run" in message
    assert own == {path: path.read_bytes() for path in own}


def test_images_are_made_nowhere_by_any_name_of_a_folder(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "origin/relative").mkdir(parents=True)
    for root, origin in (("~/made", None), (str(tmp_path / "origin/relative"), None), ("relative", "origin")):
        content = read_checkpoint(doctored(put("data/init_args/root", root)))
        torch.save(content | ({ORIGIN_KEY: str(tmp_path / origin)} if origin else {}), "received.ckpt")
        assert "images to be made in" in refusal(["test", "--ckpt_path", "received.ckpt"], capsys)
    assert not (tmp_path / "home").exists()
    assert not list((tmp_path / "origin/relative").iterdir())


def test_links_in_a_received_run_are_not_written_through(place: Path, tmp_path: Path) -> None:
    run, outside = Path("runs/padim_synthetic/version_0"), tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(run / "figures")
    (run / "figures").symlink_to(outside)
    (run / "hparams.yaml").unlink(missing_ok=True)
    (run / "hparams.yaml").symlink_to(outside / "hparams.yaml")
    assert main(["test", "--ckpt_path", str(run)]) == 0
    (run / "predictions").symlink_to(outside)
    assert main(["predict", "--ckpt_path", str(run), "--images", "data/synthetic_colonoscopy/test/good"]) == 0
    assert not list(outside.iterdir())
    assert (run / "figures/roc.png").is_file()
    (run / "figures/roc.png").unlink()
    (run / "figures/roc.png").symlink_to(outside / "roc.png")
    assert main(["test", "--ckpt_path", str(run)]) == 0
    assert not list(outside.iterdir())


def test_a_tensor_larger_than_its_file_is_refused(place: Path) -> None:
    content = read_checkpoint(BEST)
    content["state_dict"]["normal_scores"] = torch.zeros(1).expand(10**9)
    torch.save(content, "received.ckpt")
    with pytest.raises(UserError, match="normal_scores claims more memory than the file holds"):
        load("received.ckpt")


@pytest.mark.parametrize("part", ["state_dict", "hyper_parameters"])
def test_checkpoints_with_parts_of_another_type_are_refused(part: str, place: Path) -> None:
    torch.save(read_checkpoint(BEST) | {part: [1]}, "received.ckpt")
    with pytest.raises(UserError, match=r"received\.ckpt: not a checkpoint of this program"):
        load("received.ckpt")


def test_config_of_an_older_version_names_modules_where_they_were() -> None:
    text = "{model: {class_path: ccd_lightning.modules.ccd.CCD}, data: {class_path: ccd_lightning.data.sets.Folder}}"
    assert embedded_config(text, Path("last.ckpt"))["data"]["class_path"] == "ccd_lightning.data.datasets.Folder"
