"""Refusing to train on what is tested on: one rank looks, all hear of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import distributed

from ccd_lightning.commands import command
from ccd_lightning.data.duplicates import find_pairs
from ccd_lightning.data.manifest import Manifest
from ccd_lightning.errors import UserError

Result = TypeVar("Result")


class LeakCheck:
    """Compares training with test images once, on the first rank for all."""

    def __init__(self) -> None:
        self._leak: str | None = None  # once it is looked for; empty where there is none
        self._compared = False  # and all ranks know

    def refuse(
        self, manifest: Manifest, root: Path, cache_dir: Path | None, ranks: int = 1, begun: bool = False
    ) -> None:
        """Refuses a split in which training images are test images too.

        Where other processes run already it waits until they can hear of the outcome, which is in Lightning's own call.

        Args:
            manifest: The split; labels are not looked at.
            root: What --data.root names, for the message.
            cache_dir: Where thumbnails are kept; None keeps none.
            ranks: Number of processes that fit.
            begun: Whether the others run already, started by what started this one.

        Raises:
            UserError: On every rank, if an image is in both, or a patient or video is.
        """
        together = distributed.is_available() and distributed.is_initialized()
        if self._compared or (not together and begun):
            return
        if self._leak is None:
            self._leak = first_rank_does(lambda: find_leak(manifest, root, cache_dir))
        elif together:  # as the first rank found before it started the others
            self._leak = first_rank_does(lambda: self._leak or "")
        self._compared = together or ranks == 1
        if self._leak:
            raise UserError(self._leak)


def find_leak(manifest: Manifest, root: Path, cache_dir: Path | None) -> str:
    """Compares training with test images; labels are not looked at.

    Args:
        manifest: The split.
        root: What --data.root names, for the message.
        cache_dir: Where thumbnails are kept; None keeps none.

    Returns:
        What is in both, in a sentence that says what to do; empty if nothing is.
    """
    train, test = (len(manifest.select(split)) for split in ("train", "test"))
    if not test:
        return ""
    print(f"data: comparing {train} training images with {test} test images, to find duplicates")
    leaks = [pair for pair in find_pairs(manifest, cache_dir) if pair.is_leak]
    if not leaks:
        return ""
    prepare = command("data", "prepare", "--root", root)
    more = f", and so are {len(leaks) - 1} more pairs" if leaks[1:] else ""
    return (
        f"training image {leaks[0].train} and test image {leaks[0].test} {leaks[0].reason}{more}. `{prepare}`"
        f" writes a split without such training images; --data.check_leaks false skips this check."
        f"{' --data.groups false treats every image separately.' * leaks[0].reason.startswith('are both of ')}"
    )


def first_rank_does(work: Callable[[], Result]) -> Result:
    """What work returns on the first rank, on every rank, each of which has to call this.

    Raises:
        UserError: On every rank, where work fails on the first one.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return work()
    outcome: list[Any] = [None, None]
    failure: Exception | None = None
    if distributed.get_rank() == 0:
        try:
            outcome[0] = work()
        except Exception as error:  # whatever it is, the other ranks must not wait for ever
            failure, outcome[1] = error, str(error) or type(error).__name__
    distributed.broadcast_object_list(outcome)
    if failure:
        raise failure
    if outcome[1]:
        raise UserError(outcome[1])
    result: Result = outcome[0]
    return result
