"""Optional packages: how to install those of an extra."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires
from shlex import quote


def pip_install(extra: str) -> str:
    """The command that installs the packages of an extra of pyproject.toml, wherever this package came from.

    Args:
        extra: Its name, such as "dicom".

    Returns:
        `pip install` with each package and its range of versions.
    """
    marker = re.compile(rf"""(?P<package>[^;]+?) *; *extra == ["']{re.escape(extra)}["']""")
    try:
        found = map(marker.fullmatch, requires("ccd-lightning") or [])
        packages = [match["package"] for match in found if match]
    except PackageNotFoundError:  # run from its source, without having been installed
        packages = []
    return " ".join(["pip install", *map(quote, packages or [f"ccd-lightning[{extra}]"])])
