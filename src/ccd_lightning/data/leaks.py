"""Check for data leaks before a fit: one rank compares the images, and all ranks get the result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import distributed

from ccd_lightning.commands import command
from ccd_lightning.data.duplicates import find_pairs
from ccd_lightning.data.manifest import Manifest
from ccd_lightning.data.walking import count
from ccd_lightning.errors import UserError

Result = TypeVar("Result")


class LeakCheck:
    """Compares training with test images once, on the first rank for all ranks."""

    def __init__(self) -> None:
        self._leak: str | None = None  # set when the images are compared; empty if there is no leak
        self._compared = False  # whether the comparison is done and all ranks have its result

    def refuse(
        self,
        manifest: Manifest,
        root: Path,
        cache_dir: Path | None,
        ranks: int = 1,
        begun: bool = False,
        similar: bool = True,
    ) -> None:
        """Raises an error if training images are also test images.

        If other processes are already running, the check is postponed to Lightning's own call of `setup`, when they can
        receive the result.

        Args:
            manifest: The split. Labels are not used.
            root: Value of --data.root, used in the message.
            cache_dir: Folder in which thumbnails are cached. None for no cache.
            ranks: Number of processes that fit.
            begun: Whether the other processes are already running, started by an external launcher.
            similar: Whether images that look the same are leaks, too.

        Raises:
            UserError: On every rank, if training and test images share an image, a patient or a video.
        """
        together = distributed.is_available() and distributed.is_initialized()
        if self._compared or (not together and begun):
            return
        if self._leak is None:
            self._leak = first_rank_does(lambda: find_leak(manifest, root, cache_dir, similar))
        elif together:  # the first rank compared before it started the others
            self._leak = first_rank_does(lambda: self._leak or "")
        self._compared = together or ranks == 1
        if self._leak:
            raise UserError(self._leak)


def find_leak(manifest: Manifest, root: Path, cache_dir: Path | None, similar: bool = True) -> str:
    """Compares training with test images. Labels are not used.

    Args:
        manifest: The split.
        root: Value of --data.root, used in the message.
        cache_dir: Folder in which thumbnails are cached. None for no cache.
        similar: Whether images that look the same are leaks, too.

    Returns:
        A message that states what is in both and how to fix it. Empty if nothing is.
    """
    train, test = (len(manifest.select(split)) for split in ("train", "test"))
    if not test:
        return ""
    images = f"{count(train, 'training image')} with {count(test, 'test image')}"
    print(f"data: comparing {images}, to find duplicates")
    leaks = [pair for pair in find_pairs(manifest, cache_dir, similar) if pair.is_leak]
    if not leaks:
        return ""
    prepare = command("data", "prepare", "--root", root)
    first = leaks[0]
    more = f"; there {'are' if leaks[2:] else 'is'} {count(len(leaks) - 1, 'more such pair')}" if leaks[1:] else ""
    ways_out = f"Remove one of them; or let `{prepare}` write a split without such training images"
    if first.reason.startswith("are both of "):
        ways_out += "; or treat every image separately with --data.groups false"
    elif first.reason.startswith("look "):
        ways_out += "; or, if they are different images, compare only files and patients with --data.check_leaks files"
    return (
        f"training image {first.train} and test image {first.test} {first.reason}{more}. {ways_out}."
        " --data.check_leaks false skips this check."
    )


def first_rank_does(work: Callable[[], Result]) -> Result:
    """Runs `work` on the first rank and returns its result on every rank. All ranks must call this.

    Raises:
        UserError: On every other rank, if `work` fails on the first one. The first rank raises the original error.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return work()
    outcome: list[Any] = [None, None]
    failure: Exception | None = None
    if distributed.get_rank() == 0:
        try:
            outcome[0] = work()
        except Exception as error:  # of any type: otherwise the other ranks would wait forever
            failure, outcome[1] = error, str(error) or type(error).__name__
    distributed.broadcast_object_list(outcome)
    if failure:
        raise failure
    if outcome[1]:
        raise UserError(outcome[1])
    result: Result = outcome[0]
    return result
