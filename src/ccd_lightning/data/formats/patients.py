"""Pseudonyms of patients: salted hashes, which do not reveal who the patient is."""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path

SALT_FILE = "CCD_SALT_FILE"  # environment variable
BYTES = 32
DIGITS = 12  # hex digits of a hash: among a million patients, the chance that two share one is 1 in 500


def pseudonym(kind: str, identifier: str) -> str:
    """Returns a name that is the same for the same identifier and user, but does not reveal the identifier.

    Args:
        kind: Type of the identifier, such as "patient". The name begins with it.
        identifier: Identifier as stored in the file.

    Returns:
        A name such as "patient-3f9a02c417de".
    """
    digest = hmac.new(_salt(salt_file()), f"{kind}:{identifier}".encode(), hashlib.sha256)
    return f"{kind}-{digest.hexdigest()[:DIGITS]}"


def salt_file() -> Path:
    """Returns the path of the user's salt: CCD_SALT_FILE, or else a file in the folder for settings."""
    if given := os.environ.get(SALT_FILE):
        return Path(given).expanduser()
    if os.name == "nt":
        base = os.environ.get("APPDATA") or "~"
    elif sys.platform == "darwin":
        base = "~/Library/Application Support"
    else:
        base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "ccd-lightning" / "salt"


@functools.cache
def _salt(file: Path) -> bytes:
    """Reads the salt from a file, which is created if it does not exist."""
    try:
        if not file.exists():
            _create(file)
        salt = file.read_bytes()
        if len(salt) >= BYTES:
            return salt
        reason = "it is too short"
    except OSError as error:
        reason = error.strerror or type(error).__name__
    print(
        f"{file}: the salt of patients' pseudonyms cannot be kept here ({reason}), so that they differ in the next run."
        f" Name another file with the environment variable {SALT_FILE}.",
        file=sys.stderr,
    )
    return secrets.token_bytes(BYTES)


def _create(file: Path) -> None:
    """Writes a new salt. If several processes do so at once, the first one's is kept. The file is never incomplete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(secrets.token_bytes(BYTES))
        with suppress(FileExistsError):
            os.link(partial, file)  # fails if the file exists, unlike a rename
    finally:
        partial.unlink(missing_ok=True)
