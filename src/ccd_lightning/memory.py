"""Measures available and used memory, so that jobs that do not fit are rejected before they start."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from ccd_lightning.errors import UserError

MEMINFO = Path("/proc/meminfo")
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # of containers
GB = 10**9


def available_memory() -> float:
    """Returns the bytes of main memory that are available to this process, or a container's limit; inf if unknown."""
    found = [float("inf")]
    if MEMINFO.is_file():
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        if "MemAvailable" in fields:
            found.append(1024 * float(fields["MemAvailable"].split()[0]))
    elif "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        found.append(float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE"))
    texts = (limit.read_text().strip() for limit in LIMITS if limit.is_file())
    return min(found + [float(text) for text in texts if text.isdigit()])


def require(needed: float, available: float, what: str, advice: str) -> None:
    """Checks that memory or disk space is sufficient.

    Args:
        needed: Number of bytes that are needed.
        available: Number of bytes that are available.
        what: Start of the error message: what needs the memory, and which memory or disk.
        advice: What the user can change, as a sentence.

    Raises:
        UserError: If more is needed than available.
    """
    if needed > available:
        raise UserError(f"{what}: {size(needed)} are needed, {size(available)} are available. {advice}")


def size(count: float) -> str:
    """Formats a number of bytes in GB."""
    return f"{count / GB:,.0f} GB" if count >= 10 * GB else f"{count / GB:.2g} GB"


def reset_peak_memory() -> None:
    """Resets the counters of `peak_memory`, if the system supports it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> tuple[int | None, int | None]:
    """Returns the peak main memory and the peak GPU memory of this process in bytes; None if unknown."""
    main, gpu = None, None
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        main = 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        gpu = int(torch.cuda.max_memory_allocated())
    return main, gpu
