"""What does not fit into memory or on the disk is refused before the first image is read."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ccd_lightning import memory
from ccd_lightning.cli import main
from ccd_lightning.data import images
from ccd_lightning.data.images import load_images
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.errors import UserError
from ccd_lightning.models.patch_features import FeatureConfig
from ccd_lightning.modules import padim
from ccd_lightning.modules.padim import PaDiM
from tests.runs import CONFIGS

GB = 10**9
CPU = torch.device("cpu")


def test_a_detector_that_is_too_large_is_refused_before_an_image_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(padim, "available_memory", lambda: 8.0 * GB)
    monkeypatch.setattr(images, "read_placed", lambda *_: pytest.fail("an image was read"))
    words = ["--data.root", "images", "--model.encoder.weights", "null", "--data.size", "2048"]
    words += ["--model.channels=100", "--model.features.positions=0"]
    assert main(["fit", "--config", str(CONFIGS / "padim_folder.yaml"), *words]) == 2
    message = capsys.readouterr().err
    assert "PaDiM of 100 channels on images of 2048 px (checkpoint: 5.3 GB), memory: 32 GB are needed" in message
    assert "8 GB are available. --model.channels 50 fits" in message
    assert not Path("runs").exists()


@pytest.mark.parametrize(("processes", "layers"), [(1, (1, 2, 3)), (1, (3,)), (4, (2, 3)), (8, (2, 3))])
def test_the_suggested_number_of_channels_fits_in_memory(
    processes: int, layers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(padim, "available_memory", lambda: 1e6)
    with pytest.raises(UserError, match=r"--model\.channels (\d+) fits") as refused:
        PaDiM(features=FeatureConfig(layers=layers), channels=50).check_memory((256, 256), CPU, processes)
    fitting = int(str(refused.value).split("--model.channels ")[1].split()[0])
    PaDiM(features=FeatureConfig(layers=layers), channels=fitting).check_memory((256, 256), CPU, processes)
    with pytest.raises(UserError):
        PaDiM(features=FeatureConfig(layers=layers), channels=fitting + 1).check_memory((256, 256), CPU, processes)


def test_the_memory_estimate_is_that_of_the_fitted_detector() -> None:
    detector = PaDiM(channels=20)
    with torch.no_grad():
        detector.gaussian.update(detector.embed(torch.rand(4, 3, 72, 72)))
    fitted = detector.gaussian.moments.scatter.numel()
    assert detector.memory((72, 72)) == (12 * fitted + 24 * 256 * 20**2, 4 * fitted * 21 // 40)
    assert detector.memory((16, 16))[0] == 36 * 16 * 20**2  # few enough to be factorised at once
    detector.gaussian.fit()
    assert detector.gaussian.state_dict()["whitening"].nbytes == 4 * fitted * 21 // 40  # lower triangles


def test_free_memory_of_the_device_limits_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    with pytest.raises(UserError, match=r"memory of cuda:1: .* are needed"):
        PaDiM(channels=50).check_memory((256, 256), torch.device("cuda:1"), 1)


@pytest.mark.parametrize("processes", [1, 3])
def test_images_that_do_not_fit_in_memory_are_reported_with_the_cache_option(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = processes * 5 * 3 * 64**2
    monkeypatch.setattr(images, "available_memory", lambda: needed - 1)
    with pytest.raises(UserError, match=r"5 decoded images of 64 px in memory: .* --data\.cache_dir DIR"):
        load_images([Path("gone.png")] * 5, Preprocessing(64), processes=processes)
    monkeypatch.setattr(images, "available_memory", lambda: needed)
    with pytest.raises(UserError, match=r"gone\.png: cannot be read"):
        load_images([Path("gone.png")] * 5, Preprocessing(64), processes=processes)


def test_a_full_disk_is_reported_before_the_cache_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(UserError, match=r"1 decoded images of 64 px in .*cache: .* a larger disk"):
        load_images([folder / "train/good/0000.png"], Preprocessing(64), folder / "cache")
    assert list((folder / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("limit", "expected"), [("max", 2048.0), ("1000", 1000.0), ("9223372036854771712", 2048.0), ("", 2048.0)]
)
def test_available_memory_respects_the_limit_of_a_container(
    limit: str, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   2 kB\n")
    (tmp_path / "max").write_text(f"{limit}\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "LIMITS", (tmp_path / "gone", tmp_path / "max"))
    assert memory.available_memory() == expected
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "gone")
    assert memory.available_memory() > 0
