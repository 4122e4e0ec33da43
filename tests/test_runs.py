"""Run folders with damaged or foreign files in them, and how files are written."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ccd_lightning import runs
from ccd_lightning.cli import main
from ccd_lightning.encoder_config import EncoderConfig, initialise_encoder
from ccd_lightning.errors import UserError
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.writing import atomic_link, atomic_write
from tests.tested_runs import GOOD, POOR, complaint, leave

DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda file: file.write_text('{"finished": "2026-0'),
    "empty": lambda file: file.write_text(""),
    "a folder": lambda file: file.mkdir(),
    "not UTF-8": lambda file: file.write_bytes(b'{"finished": "\xff"}'),
    "a list": lambda file: file.write_text("[1, 2]"),
    "a string": lambda file: file.write_text('"finished"'),
    "no time": lambda file: file.write_text('{"model": "x"}'),
    "a wrong time": lambda file: file.write_text('{"finished": "yesterday"}'),
    "a number as time": lambda file: file.write_text('{"finished": 3}'),
}


def make_run(run: Path, finished: str = "2026-01-01T00:00:00+00:00") -> Path:
    (run / runs.CHECKPOINTS).mkdir(parents=True)
    (run / runs.CHECKPOINTS / "last.ckpt").touch()
    (run / runs.RECORD).write_text(json.dumps({"finished": finished}))
    return run


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_record_leaves_other_runs_usable(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    older, sound = make_run(Path("runs/a/version_0"), "2025-12-31T00:00:00"), make_run(Path("runs/a/version_1"))
    bad = Path("runs/b/version_0") / runs.RECORD
    bad.parent.mkdir(parents=True)
    DAMAGES[name](bad)
    assert runs.newest_run() == sound != older
    message = capsys.readouterr().err.strip()
    assert message.startswith(f"ccd: warning: run ignored: {bad}: cannot be read")
    assert len(message.splitlines()) == 1
    with pytest.raises(UserError, match=r"run\.json: cannot be read"):
        runs.read_record(bad.parent)


def test_dangling_links_are_no_runs() -> None:
    sound = make_run(Path("runs/a/version_0"))
    broken = Path("runs/a/version_1") / runs.CHECKPOINTS
    broken.mkdir(parents=True)
    (broken / "last.ckpt").symlink_to("gone.ckpt")
    (broken / "best.ckpt").symlink_to("gone.ckpt")
    (broken.parent / runs.CONFIG).symlink_to("gone.yaml")
    Path("runs/a/latest").symlink_to("version_7")
    assert runs.newest_run() == runs.newest_begun(Path("runs")) == sound
    assert runs.checkpoint_of(broken.parent) is None
    assert runs.newest_version(Path("runs/a")) is None
    with pytest.raises(UserError, match="no such run or checkpoint"):
        runs.find_checkpoint(Path("runs/a/latest"))


def test_the_newest_run_is_the_newest_though_the_clock_was_set_back() -> None:
    make_run(Path("runs/a/version_0"), "2199-01-01T00:00:00")
    (make_run(Path("runs/broken/version_0")) / runs.RECORD).write_text("{")
    make_run(Path("elsewhere/a/version_0"), "9999-12-31T23:59:59.999999")
    assert runs.time_to_record(Path("elsewhere")).year < 9999
    newer = make_run(Path("runs/a/version_1"), runs.time_to_record(Path("runs")).isoformat())
    newest = make_run(Path("runs/0/version_0"), runs.time_to_record(Path("runs")).isoformat())
    assert runs.newest_run() == newest
    assert runs.newest_run(Path("runs/a")) == newer
    before = datetime.now(UTC)
    assert before <= runs.time_to_record(Path("runs/empty")) <= datetime.now(UTC)


def test_runs_are_found_at_any_depth_but_not_inside_of_runs() -> None:
    deep = make_run(Path("runs/studies/real/cell/version_0"), "2025-12-31T00:00:00")
    newer = make_run(Path("runs/a/version_0"))
    make_run(newer / "pictures/version_0", "2027-01-01T00:00:00")
    Path("runs/a/latest").symlink_to("version_0")
    assert sorted(runs.runs_below(Path("runs"))) == [newer, deep]
    assert runs.newest_run() == newer
    assert list(runs.runs_below(newer)) == [newer]


def test_a_search_for_runs_ends_where_no_folder_of_runs_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MAX_FOLDERS", 20)
    for number in range(20):
        Path("disk", str(number)).mkdir(parents=True)
    for search in (runs.find_checkpoint, runs.newest_begun):
        with pytest.raises(UserError, match=r"disk: more than 20 folders, too many to search for runs"):
            search(Path("disk"))
    with pytest.raises(UserError, match=r"disk: more than 20 folders"):
        initialise_encoder(Encoder(), EncoderConfig(weights="disk"))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *(("metrics.json", content) for content in (b"", b'{"metrics"', b"[]", b"null", b"\xff", b"{}", b"[" * 9**6)),
        *(("predictions.csv", content) for content in (b"", b"path,label\n", b"\xff\n", b"path,label,score\n")),
        ("predictions.csv", b"path,label,score\n0,7,1.0\n"),
        ("predictions.csv", b"path,label,score\n0,1,nan\n"),
        ("predictions.csv", b"path,label,score\n0,1\n"),
        ("predictions.csv", b"path,label,score\n0,1,1.0\n0,1,2.0\n"),
        ("predictions.csv", b'path,label,score\n"' + b"x" * 200_000 + b'",1,1.0\n'),
    ],
)
def test_damaged_results_are_named(file: str, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    names = [leave("first", GOOD), leave("second", POOR)]
    (Path(names[1]) / file).write_bytes(content)
    message = complaint(*names, capsys=capsys)
    assert f"{names[1]}/{file}: cannot be read" in message
    assert f"ccd test --ckpt_path {names[1]}" in message


def test_a_damaged_config_does_not_stop_the_test(workspace: Path) -> None:
    config = Path("runs/padim_synthetic/version_0/config.yaml")
    for content in (b"\xff", b"a: [", b"3"):
        config.write_bytes(content)
        assert main(["test", "--ckpt_path", "runs/padim_synthetic"]) == 0


def break_off(file: Path) -> None:
    with atomic_write(file) as partial:
        partial.write_text("half of")
        raise KeyboardInterrupt


def test_files_are_written_in_one_piece(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    for old in (None, "old"):
        with pytest.raises(KeyboardInterrupt):
            break_off(file)
        assert (file.read_text() if file.exists() else None) == old
        with atomic_write(file) as partial:
            partial.write_text("old")
            assert old is not None or not file.exists()
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_link_is_replaced(tmp_path: Path) -> None:
    for target in ("version_0", "version_1"):
        atomic_link(tmp_path / "latest", target)
        assert os.readlink(tmp_path / "latest") == target
    assert os.listdir(tmp_path) == ["latest"]
