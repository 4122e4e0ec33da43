"""Pseudonyms: the same for one user, without a way back."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ccd_lightning.data.formats import patients
from ccd_lightning.data.formats.patients import pseudonym, salt_file


@pytest.fixture(autouse=True)
def salt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CCD_SALT_FILE", str(tmp_path / "deep/salt"))
    return tmp_path / "deep/salt"


def test_the_salt_is_made_once_for_the_user_alone(salt: Path) -> None:
    first = pseudonym("patient", "Doe")
    assert len(salt.read_bytes()) == 32
    assert os.name == "nt" or stat.S_IMODE(salt.stat().st_mode) == 0o600
    assert list(salt.parent.iterdir()) == [salt]
    patients._salt.cache_clear()
    assert pseudonym("patient", "Doe") == first
    assert pseudonym("study", "Doe")[-12:] != first[-12:]


def test_another_salt_gives_other_pseudonyms(salt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pseudonym("patient", "Doe")
    monkeypatch.setenv("CCD_SALT_FILE", str(tmp_path / "other"))
    assert pseudonym("patient", "Doe") != first


def test_threads_agree_on_one_salt(salt: Path) -> None:
    def salted(_: int) -> bytes:
        return patients._salt.__wrapped__(salt)

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(salted, range(64)))) == 1


def test_the_salt_is_in_the_users_settings_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CCD_SALT_FILE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    assert salt_file() == tmp_path / "settings/ccd-lightning/salt"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert salt_file() == Path("~/.config/ccd-lightning/salt").expanduser()


def test_a_salt_that_cannot_be_stored_serves_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CCD_SALT_FILE", str(tmp_path / "file/salt"))
    assert pseudonym("patient", "Doe") == pseudonym("patient", "Doe")
    message = capsys.readouterr().err
    assert message.count("CCD_SALT_FILE") == 1
    assert "file/salt: the salt of patients' pseudonyms cannot be kept here" in message
    patients._salt.cache_clear()


def test_a_short_salt_is_not_used(salt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    salt.parent.mkdir()
    salt.write_bytes(b"short")
    patients._salt.cache_clear()
    pseudonym("patient", "Doe")
    assert "too short" in capsys.readouterr().err
    assert salt.read_bytes() == b"short"
