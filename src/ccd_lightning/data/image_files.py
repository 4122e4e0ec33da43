"""Images without labels: finding the files, and decoding them batch by batch."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ccd_lightning.commands import expand
from ccd_lightning.data.images import Placed, read_placed
from ccd_lightning.data.loading import Batch, possible_workers, unit_range
from ccd_lightning.data.naming import SUFFIXES, is_junk
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.sources import file_of
from ccd_lightning.data.walking import Found, count, count_unread, sort_files, walk
from ccd_lightning.errors import UserError


def find_files(patterns: Sequence[str]) -> list[str]:
    """Returns the image files that `look_for` finds."""
    return look_for(patterns)[0]


def look_for(patterns: Sequence[str]) -> tuple[list[str], str]:
    """Finds the image files in files, folders and patterns, each once, in the order of the patterns.

    A file is included whatever its suffix. From folders (including subfolders) and patterns, files with an image suffix
    are included, sorted by name. Links to folders are followed. Hidden files are skipped and, within a folder, masks
    and the pictures written by an earlier call.

    Args:
        patterns: Paths or patterns (`*`, `**`, `?`, `[...]`); `~` is the home folder.

    Returns:
        The files, and a description of masks and files of other types that were found; empty if there are none.

    Raises:
        UserError: If a path or pattern matches no image.
    """
    found: dict[str, str] = {}
    masks, unread = list[Path](), list[Path]()
    for pattern in patterns:
        path = str(expand(pattern))
        files = _files_of(path)
        masks += files.masks
        unread += files.unread
        for here in files.images:
            found.setdefault(os.path.join(os.path.realpath(here.parent), here.name), str(here))
        if not files.images:
            what = "no images in this folder" if os.path.isdir(path) else "no such file, and no image that it matches"
            others = f"; there is {count_unread(files.unread)}" if files.unread else ""
            raise UserError(f"{pattern}: {what} ({', '.join(sorted(SUFFIXES))} are read){others}. Give another path.")
    parts = [count(len(set(masks)), "mask")] * bool(masks) + [count_unread(set(unread))] * bool(unread)
    return list(found.values()), ", ".join(parts)


def _files_of(pattern: str) -> Found:
    if os.path.isdir(pattern):
        return _below(Path(pattern))
    if os.path.exists(file_of(Path(pattern))):
        return Found([Path(pattern)], [], [])
    found = Found([], [], [])
    for match in sorted(glob.iglob(pattern, recursive=True)):
        if any(map(is_junk, match.split(os.sep))) and not any(map(is_junk, pattern.split(os.sep))):
            continue
        if not os.path.isdir(match):
            one = sort_files([Path(match)], Path(match).parent)
            found.images.extend(one.images)
            found.unread.extend(one.unread)
        elif "**" not in pattern:  # `**` also matches everything below it
            for own, more in zip(found, _below(Path(match)), strict=True):
                own.extend(more)
    return found


def _below(folder: Path) -> Found:
    files = list(walk(folder))
    earlier = [path.parent / name for path in files if path.name == "predictions.csv" for name in ("overlays", "maps")]
    return sort_files((path for path in files if not any(map(path.is_relative_to, earlier))), folder)


class FileBatches(Dataset[Batch]):
    """Batches of images that are decoded on request, so that no image is kept in memory.

    A batch contains `image` (B, 3, H, W) uint8 and `content` (B, 4) int64 like the items of `AnomalyDataset`,
    `placement` (B, 10) int64 (`Placement.numbers`), `path`, and `reason`: empty, or why the file could not be read, in
    which case the image is black.

    Args:
        paths: Paths of the files.
        preprocessing: Preprocessing that resizes images to working size.
        batch_size: Number of images in a batch.
    """

    def __init__(self, paths: Sequence[str], preprocessing: Preprocessing, batch_size: int) -> None:
        self.paths = paths
        self.preprocessing = preprocessing
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.paths) / self.batch_size)

    def __getitem__(self, number: int) -> Batch:
        paths = self.paths[number * self.batch_size : (number + 1) * self.batch_size]
        with ThreadPoolExecutor(1 if get_worker_info() else os.cpu_count()) as pool:
            images, reasons = zip(*pool.map(self._read, paths), strict=True)
        pixels = torch.from_numpy(np.stack([image.pixels for image in images])).permute(0, 3, 1, 2).contiguous()
        content = torch.tensor([image.placement.content for image in images])
        placement = torch.tensor([image.placement.numbers() for image in images])
        texts = {"path": list(paths), "reason": list(reasons)}
        return {"image": pixels, "content": content, "placement": placement, **texts}

    def _read(self, path: str) -> tuple[Placed, str]:
        try:
            return read_placed(Path(path), self.preprocessing), ""
        except UserError as error:
            reason = str(error).removeprefix(f"{Path(path)}: ")
        except Exception as error:  # any other decoder error in one file must not stop the scoring of the others
            reason = f"{type(error).__name__}: {error}"
        height, width = self.preprocessing.shape
        black = np.zeros((height, width, 3), np.uint8)
        return Placed(black, self.preprocessing.place(Image.fromarray(black))), reason


class ImageFiles(LightningDataModule):
    """Images to predict. Each rank gets a contiguous part of them.

    Args:
        paths: Paths of the files.
        preprocessing: Preprocessing that resizes images to working size.
        batch_size: Number of images in a batch.
        num_workers: Number of processes that load images. 0 loads in the main process.
    """

    def __init__(self, paths: Sequence[str], preprocessing: Preprocessing, batch_size: int, num_workers: int) -> None:
        super().__init__()
        self.paths = paths
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.num_workers = num_workers

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Returns a loader of this rank's images, in order.

        Raises:
            UserError: If there are fewer images than ranks.
        """
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        count = len(self.paths)
        if count < ranks:
            raise UserError(f"{count} images for {ranks} processes. Ask for fewer --trainer.devices.")
        mine = self.paths[count * rank // ranks : count * (rank + 1) // ranks]
        return DataLoader(
            FileBatches(mine, self.preprocessing, self.batch_size),
            batch_size=None,  # an item is a batch
            num_workers=possible_workers(self.num_workers),
            pin_memory=torch.cuda.is_available(),
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Converts images from uint8 to [0, 1]."""
        image: Tensor = batch["image"]
        return batch | {"image": unit_range(image)}
