"""A user's mistakes: one or two sentences that name the culprit, exit code 2, nothing started."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ccd_lightning import __version__
from ccd_lightning.cli import main
from ccd_lightning.cli.parser_errors import explain_trainer
from tests.runs import CCD, CONFIGS
from tests.tested_runs import output_without_torch

VIEWS = ["--data.views", "ccd_lightning.transforms.pretext.PretextViews"]
PADIM = ["fit", "--config", str(CONFIGS / "padim_folder.yaml"), "--model.encoder.weights", "null"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def complaint(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed on stderr by a command that fails as it should."""
    capsys.readouterr()
    assert main(words) == 2
    assert not Path("runs").exists()
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert len(text.strip().splitlines()) < 15
    return text


def truncate(root: Path) -> None:
    file = root / "train/good/0001.png"
    file.write_bytes(file.read_bytes()[:300])


def empty(root: Path) -> None:
    for path in (root / "train/good").iterdir():
        path.unlink()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated image": (truncate, "train/good/0001.png: cannot be decoded"),
    "empty folder": (empty, "train/good: no images in this folder"),
    "mask without image": (
        lambda root: (root / "test/polyp_subtle/0000.png").unlink(),
        "ground_truth/polyp_subtle/0000.png: no image for this mask",
    ),
    "wrong size of mask": (
        lambda root: Image.new("L", (9, 9)).save(root / "ground_truth/polyp_subtle/0000.png"),
        "ground_truth/polyp_subtle/0000.png: the mask has 9 x 9 pixels",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_data_are_reported(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, expected = DAMAGES[name]
    damage(folder)
    assert expected in complaint([*PADIM, "--data.root", str(folder)], capsys)


def test_an_image_without_mask_where_masks_are_required(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "ground_truth/polyp_subtle/0000.png").unlink()
    message = complaint([*PADIM, "--data.root", str(folder), "--data.require_masks", "true"], capsys)
    assert "test/polyp_subtle/0000.png: no mask for this image; 1 of 6 abnormal images have none" in message


def test_a_missing_folder_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere: no such folder" in complaint([*PADIM, "--data.root", "nowhere"], capsys)
    assert "data.root is missing: give it with --data.root" in complaint(PADIM, capsys)


def test_a_missing_run_for_the_encoder_is_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--config", str(CONFIGS / "padim_folder.yaml"), "--data.root", str(folder)]
    text = complaint([*words, "--model.encoder.weights", "runs/ccd_folder"], capsys)
    assert "runs/ccd_folder: no CCD run for the encoder" in text
    assert "--model.encoder.weights null" in text


def test_a_test_without_a_run_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no finished run" in complaint(["test"], capsys)
    assert "runs/mine: no such run or checkpoint" in complaint(["test", "--ckpt_path", "runs/mine"], capsys)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("size: 224", "sise: 224"), "There is no option 'data.sise'; did you mean 'size'?"),
        (("encoder: {weights", "encodr: {weights"), "There is no option 'model.encodr'; did you mean 'encoder'?"),
        (("{weights", "{wights"), "There is no option 'model.encoder.wights'; did you mean 'weights'?"),
        (("max_epochs", "max_epoch"), "There is no option 'trainer.max_epoch'; did you mean 'max_epochs'?"),
        (("\ntrainer:", "\ntrainr:"), "There is no option 'trainr'; did you mean 'trainer'?"),
        (("size: 224", "size: big"), "data.size is big, but must be a number of pixels, or '[HEIGHT, WIDTH]'."),
        (("class_path: PaDiM", "class_path: PaDIM"), "model: there is no class PaDIM; did you mean PaDiM?"),
        (
            ("class_path: Folder", "class_path: Scans"),
            "data: there is no class Scans; give one of Anomaly",
        ),
        (
            ("PaDiM", "ccd_lightning.modules.padim.PaDIM"),
            "model: there is no class ccd_lightning.modules.padim.PaDIM; ",
        ),
        (("trainer: {", "trainer: ["), "mine.yaml, line "),
    ],
)
def test_misspelt_configs_are_reported(
    change: tuple[str, str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = (CONFIGS / "padim_folder.yaml").read_text()
    assert change[0] in config
    Path("mine.yaml").write_text(config.replace(*change))
    assert expected in complaint(["fit", "--config", "mine.yaml", "--data.root", "somewhere"], capsys)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--model.quantile", "95"], "model.quantile is 95"),
        (["--model.channels", "0"], "model.channels is 0"),
        (["--data.batch_size", "0"], "data.batch_size is 0"),
        (["--trainer.accelerator", "gpu"], "give --trainer.accelerator cpu"),
        (["--trainer.devices", "0"], "devices"),
        (["--ckpt_path", "runs/mine"], "runs/mine: no such run or checkpoint"),
    ],
)
def test_impossible_settings_are_reported(
    words: list[str], expected: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert expected in complaint([*PADIM, "--data.root", str(folder), *words], capsys)


def test_more_gpus_than_exist_are_reported() -> None:
    message = explain_trainer("You requested gpu: [0, 1]\n But your machine only has: [0]")
    assert message.startswith(
        "trainer.devices: You requested gpu: [0, 1] But your machine only has: [0]. Ask for fewer"
    )


def test_a_mistake_touches_no_file_that_is_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truncate(folder)
    Path("precious.txt").write_text("mine")
    here = ["--trainer.logger.init_args.save_dir", ".", "--trainer.logger.init_args.name", ""]
    for place in (["--trainer.logger", "false"], [*here, "--trainer.logger.init_args.version", ""]):
        complaint([*PADIM, "--data.root", str(folder), *place], capsys)
        assert Path("precious.txt").read_text() == "mine"
        assert {path.name for path in Path().iterdir()} == {"images", "precious.txt"}


@pytest.mark.fit
def test_a_mask_that_a_worker_cannot_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data.root", str(folder), "--data.size", "64", "--data.num_workers", "1"]
    assert main([*PADIM, *words]) == 0
    mask = folder / "ground_truth/polyp_subtle/0001.png"
    mask.write_bytes(mask.read_bytes()[:60])
    capsys.readouterr()
    assert main(["test"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith(f"ccd: {mask}: cannot be decoded")
    assert len(lines) < 15


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data.rot", "x"], "There is no option 'data.rot'; did you mean 'root'?"),
        (["--model.encoder.freeze", "1"], "There is no option 'model.encoder.freeze' here"),
        (["--data.views.patch_siz", "3"], "There is no option 'data.views.patch_siz'; did you mean 'patch_size'?"),
        (
            [*VIEWS, "--data.views.patch_siz", "3"],
            "There is no option 'data.views.patch_siz'; did you mean 'patch_size'?",
        ),
        (["--trainr.max_epochs", "3"], "There is no option 'trainr'; did you mean 'trainer'?"),
        (["--data.size", "abc"], "data.size is abc, but must be a number of pixels"),
        (["--data", "SyntheticFundus", "--data.size", "[64, 96]"], "data.size is [64, 96], but must be one number"),
        (["--data.size", "[1, 2, 3]"], "data.size is [1, 2, 3], but must be a number of pixels"),
        (["--data.crop", "x"], "data.crop is x, but must be '[LEFT, TOP, RIGHT, BOTTOM]' as fractions, auto, or null"),
        (["--data.tiles", "{side: x}"], "data.tiles.side is x, but must be a whole number"),
        (["--data.fit", "bent"], "data.fit is bent, but must be one of 'squash', 'letterbox', 'crop'."),
        (["--data.views", "PretextView"], "data.views: there is no class PretextView; did you mean PretextViews?"),
        (
            [*VIEWS, "--data.views.family", "Rotated"],
            "data.views.family: there is no class Rotated; did you mean Rotation?",
        ),
        (["--model", "model.yaml"], "model: there is no file model.yaml; its path is relative to"),
    ],
)
def test_misspelt_options_are_reported(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in complaint([*PADIM, "--data.root", "somewhere", *words], capsys)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--model.encoder.freze=1"], "There is no option 'model.encoder.freze'; did you mean 'freeze'?"),
        (["--model.encoder.freeze=1"], "model.encoder.freeze is 1, but there are no weights to keep: give --model"),
        (["--model.encoder.batch_norm=frozen"], "model.encoder.batch_norm is frozen, but must be one of"),
        (["--data.views.pairs=0"], "model.position_weight is 1.0, but data.views.pairs is 0. Give --data.views.pairs"),
        (["--data.views.pairs=-1"], "data.views.pairs is -1, but must be 0 or more"),
    ],
)
def test_impossible_settings_of_pretraining_are_reported(
    words: list[str], expected: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["fit", "--config", str(CONFIGS / "ccd_folder.yaml"), "--data.root", str(folder), "--data.size=64"]
    assert expected in complaint([*config, *words], capsys)


def test_no_config_and_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nope.yaml" in complaint(["fit", "--config", "nope.yaml"], capsys)
    assert "Give a config, such as: ccd fit --config" in complaint(["fit"], capsys)
    assert "Which run? Give --ckpt_path RUN" in complaint(
        ["test", "--config", str(CONFIGS / "padim_folder.yaml")], capsys
    )
    assert "no command 'fti'" in complaint(["fti"], capsys)


def test_debug_shows_the_traceback() -> None:
    from ccd_lightning.errors import UserError

    with pytest.raises(UserError):
        main(["test", "--debug"])


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["-h"], ["--help"]):
        assert main(words) == 0
        assert capsys.readouterr().out.startswith("usage: ccd COMMAND")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ccd-lightning {__version__}\n"


@pytest.mark.process
@pytest.mark.parametrize("words", [["--help"], ["data", "--help"], ["compare", "--help"], ["--version"]])
def test_help_imports_neither_torch_nor_lightning(words: list[str]) -> None:
    assert "ccd" in output_without_torch(*words)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.views.patch_size=16"], "data.views.patch_size is 16, but the encoder test_convnext cannot take"),
        (["--data.views.size=16"], "data.views.size is 16, but the encoder test_convnext cannot take"),
        (["--data.views.patch_size=16", "--data.views.pairs=0", "--model.position_weight=0"], ""),
    ],
)
def test_views_that_the_encoder_cannot_take(
    options: list[str], message: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = [*CCD, "--trainer.max_epochs=1", "--model.encoder.name=test_convnext", "--data.views.patch_size=32"]
    place = "--trainer.logger.init_args.name=sizes"
    assert main([*fit, *options, place]) == (2 if message else 0)
    assert message in capsys.readouterr().err
    assert Path("runs/sizes").exists() == (not message)
