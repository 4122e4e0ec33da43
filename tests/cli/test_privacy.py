"""What DICOM files say of patients reaches nothing that a command writes or prints."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from ccd_lightning import load
from ccd_lightning.cli import main
from ccd_lightning.data.formats import patients, read_header
from tests.dicom_files import dicom
from tests.runs import CONFIGS

SIDE = 32
CANARIES = {
    "PatientName": "Canaryname^Jane",
    "PatientID": "CANARYID",
    "OtherPatientIDs": "CANARYOTHER",
    "PatientBirthDate": "19470611",
    "PatientAddress": "Canarystreet 5",
    "StudyDate": "20190823",
    "StudyTime": "112233.445566",
    "StudyID": "CANARYSTUDY",
    "StudyDescription": "Canarydescription",
    "StudyInstanceUID": "1.2.826.0.1.47110815",
    "SeriesInstanceUID": "1.2.826.0.1.47110816",
    "AccessionNumber": "CANARYACCESSION",
    "InstitutionName": "Canaryhospital",
    "ReferringPhysicianName": "Canarydoctor",
    "ImageComments": "Canarycomment",
    "WindowCenterWidthExplanation": ["Canarywindow", "Canarywindow"],
}
TELLING = [b"canary", b"19470611", b"20190823", b"112233.44", b"47110815", b"47110816"]
pytestmark = [pytest.mark.fit, pytest.mark.export]


def scan(path: Path, seed: int, lesion: bool = False, **tags: Any) -> Path:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.uniform(900, 1100, (5, 5)).astype(np.float32))
    values = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(np.uint16)
    values[8:16, 8:16] += 300 * lesion
    own = {"PatientID": f"{CANARIES['PatientID']}{seed}", "WindowCenter": [40, 300], "WindowWidth": [80, 1500]}
    return dicom(path, values, BitsStored=12, RescaleSlope=1, RescaleIntercept=-1024, **CANARIES | own | tags)


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Seventeen DICOM files with canaries in their tags, and a table of them without a column of groups."""
    monkeypatch.setenv("CCD_SALT_FILE", str(tmp_path / "salt"))
    patients._salt.cache_clear()
    root, rows = tmp_path / "scans", ["path,split,kind"]
    for index in range(17):
        split, kind = ("train", "good") if index < 11 else ("test", "good" if index < 14 else "lesion")
        rows.append(f"{scan(root / f'{index}.dcm', index, kind == 'lesion').relative_to(root)},{split},{kind}")
    (root / "table.csv").write_text("\n".join(rows))
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    return root


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All files below a folder, and what zip files, such as checkpoints, hold."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield str(file), file.read_bytes()
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                yield from ((f"{file}:{name}", archive.read(name)) for name in archive.namelist())


def refuse_canaries(name: str, content: bytes) -> None:
    found = [canary for canary in TELLING if canary in content.lower()]
    assert not found, f"{name}: {found}"


def test_nothing_of_a_patient_is_written_or_printed(scans: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = (scans / "16.dcm").read_bytes()
    (scans / "cut.dcm").write_bytes(content[: len(content) - 900])
    slope = b"\x28\x00\x53\x10DS\x02\x00"
    (scans / "broken.dcm").write_bytes(content.replace(slope + b"1 ", slope + b"Ca"))
    table = ["--data.root", str(scans), "--data.layout", str(scans / "table.csv"), "--data.size", str(SIDE)]
    config = ["--config", str(CONFIGS / "padim_folder.yaml"), "--model.encoder.weights", "null"]
    assert main(["fit", *config, *table, "--data.window", "[-40, 80]", "--data.cache_dir", "cache"]) == 0
    assert main(["test"]) == 0
    files = [str(path) for path in sorted(scans.glob("*.dcm"))]
    assert main(["predict", "--images", *files, "--output", "out"]) == 3  # as two files cannot be read
    reading = ["--root", str(scans), "--layout", str(scans / "table.csv"), "--size", str(SIDE)]
    assert main(["data", "check", *reading]) == 0
    assert main(["data", "prepare", *reading, "--output", "made.csv", "--copy", "copy"]) == 0
    assert main(["export"]) == 0
    assert main(["fit", *config, *table[:-2], "--data.size", "8", "--data.window", "stored:BONE"]) == 2

    message = "".join(capfd.readouterr())
    assert "2 of 19" in message or "cut.dcm" in message
    assert "no window 'BONE'" in message
    refuse_canaries("what was printed", message.encode())
    names = set()
    for name, written in contents(Path.cwd()):
        refuse_canaries(name, written)
        names.add(Path(name).name)
    assert {"best.ckpt", "predictions.csv", "report.html", "metrics.json", "findings.csv", "made.csv"} <= names
    assert {"detector.onnx", "0.dcm.png"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)


def test_the_search_for_names_finds_them_in_every_sort_of_file(scans: Path, tmp_path: Path) -> None:
    """So that the test above cannot pass for want of canaries or of a search."""
    for canary in TELLING:
        assert canary in (scans / "0.dcm").read_bytes().lower()
    np.savez(tmp_path / "place/a.npz", name=np.array("CanaryName"))
    with zipfile.ZipFile(tmp_path / "place/b.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", "Canary" * 100)
    for name in ("b.ckpt:data.pkl",):
        ((_, content),) = [one for one in contents(Path.cwd()) if one[0].endswith(name)]
        with pytest.raises(AssertionError, match="canary"):
            refuse_canaries(name, content)
    assert (read_header(scans / "0.dcm").group or "").startswith("patient-")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("[-40, 80]", [-40.0, 80.0]),
        ("percentile [0, 100]", None),
        ("stored", "stored"),
    ],
)
def test_the_window_of_a_command_line_is_kept_for_test_and_predict(
    given: str, kept: Any, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ["--data.root", str(scans), "--data.layout", str(scans / "table.csv"), "--data.size", str(SIDE)]
    config = ["--config", str(CONFIGS / "padim_folder.yaml"), "--model.encoder.weights", "null"]
    assert main(["fit", *config, *table, "--data.window", given]) == 0
    window = yaml.safe_load(Path("runs/padim_folder/latest/config.yaml").read_text())["data"]["init_args"]["window"]
    message = capsys.readouterr().out
    if kept is None:
        low, high = window
        assert -1024 <= low < high < 400
        assert (
            f"11 of 11 training images have more than 8 bits: grey values from {low:g} to {high:g} become 0" in message
        )
    else:
        assert window == kept
        assert message.count("(set others with --data.window)") == 1
    assert main(["test"]) == 0
    assert main(["predict", "--images", str(scans / "16.dcm"), "--output", "out"]) == 0
    tested, predicted = (
        next(row.split(",")[at] for row in (place / "predictions.csv").read_text().splitlines() if "16.dcm" in row)
        for place, at in ((Path("runs/padim_folder/latest"), 2), (Path("out"), 1))
    )
    assert float(predicted) == pytest.approx(float(tested), rel=1e-4)
    detector = load("runs/padim_folder")
    assert detector.preprocessing is not None
    assert detector.preprocessing.window == (tuple(window) if isinstance(window, list) else window)
    assert "Images of more than 8 bits" in Path("runs/padim_folder/latest/report.html").read_text()


def test_scores_do_not_depend_on_the_format(scans: Path) -> None:
    grey = np.asarray(Image.linear_gradient("L").resize((SIDE, SIDE)))
    for index in range(11):
        turned = np.roll(grey, 3 * index, axis=0)
        for folder in ("train/good", "test/good", "test/lesion"):
            path = Path(f"plain/{folder}/{index}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(turned).save(path)
    sub = ["--data.root", "plain", "--data.size", str(SIDE), "--data.window", "full", "--data.check_leaks", "false"]
    config = ["--config", str(CONFIGS / "padim_folder.yaml"), "--model.encoder.weights", "null"]
    assert main(["fit", *config, *sub]) == 0
    image = np.random.default_rng(5).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(image).save("8.png")
    Image.fromarray(image.astype(np.uint16) * 257).save("16.png")
    Image.fromarray(image.astype(np.uint16) * 257).save("16.tif")
    for number in ("1", "5", "4.90"):
        dicom(Path(f"{number}.dcm"), image, f"1.2.840.10008.1.2.{number}")
        dicom(Path(f"{number}_16.dcm"), image.astype(np.uint16) * 257, f"1.2.840.10008.1.2.{number}")
    files = sorted(str(path) for path in Path().glob("*.*"))
    assert len(files) == 9
    assert main(["predict", "--images", *files, "--output", "out"]) == 0
    scores = {row.split(",")[1] for row in Path("out/predictions.csv").read_text().splitlines()[1:]}
    assert len(scores) == 1
