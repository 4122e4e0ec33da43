"""Installation commands for optional packages."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires
from shlex import quote


def pip_install(extra: str) -> str:
    """Returns the command that installs the packages of an extra of pyproject.toml.

    It works however this package was installed.

    Args:
        extra: Name of the extra, such as "dicom".

    Returns:
        `pip install` with each package and its version range.
    """
    marker = re.compile(rf"""(?P<package>[^;]+?) *; *extra == ["']{re.escape(extra)}["']""")
    try:
        found = map(marker.fullmatch, requires("ccd-lightning") or [])
        packages = [match["package"] for match in found if match]
    except PackageNotFoundError:  # run from source, without installation
        packages = []
    return " ".join(["pip install", *map(quote, packages or [f"ccd-lightning[{extra}]"])])
