"""Any images, without labels: finding the files, and decoding them batch by batch."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ccd_lightning.commands import expand
from ccd_lightning.data.datamodule import Batch, possible_workers, unit_range
from ccd_lightning.data.images import Geometry, UInt8Array, read_image
from ccd_lightning.data.layouts import SUFFIXES
from ccd_lightning.data.published import MASKS, is_junk
from ccd_lightning.errors import UserError


def find_files(places: Sequence[str]) -> list[str]:
    """The image files that files, folders and patterns stand for, each once, in the order of the places.

    A file is taken whatever its suffix; of a folder with its subfolders, and of a pattern, those with an image's suffix
    are, in order of their names. Hidden ones are passed over, and within a folder masks and an earlier call's pictures.

    Args:
        places: Paths or patterns (`*`, `**`, `?`, `[...]`); `~` is the home folder.

    Raises:
        UserError: If a place holds no image.
    """
    found: dict[str, str] = {}
    for place in places:
        path, here = str(expand(place)), None
        for here in _files_of(path):
            found.setdefault(os.path.abspath(here), str(Path(here)))
        if here is None:
            what = "no images in this folder" if os.path.isdir(path) else "no such file, and no image that it matches"
            raise UserError(f"{place}: {what} ({', '.join(sorted(SUFFIXES))} are read).")
    return list(found.values())


def _files_of(place: str) -> Iterator[str]:
    if os.path.isdir(place):
        yield from _walk(place)
    elif os.path.exists(place):
        yield place
    else:
        for match in sorted(glob.iglob(place, recursive=True)):
            if any(map(is_junk, match.split(os.sep))) and not any(map(is_junk, place.split(os.sep))):
                continue
            if os.path.isdir(match):
                yield from () if "**" in place else _walk(match)  # ** matches what is below it too
            elif _is_image(match):
                yield match


def _walk(folder: str) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        written = {"overlays", "maps"} if "predictions.csv" in names else set()
        folders[:] = sorted(name for name in folders if not is_junk(name) and name not in {*MASKS, *written})
        yield from (os.path.join(place, name) for name in sorted(names) if _is_image(name) and not is_junk(name))


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


class FileBatches(Dataset[Batch]):
    """Batches of images that are decoded when they are asked for, so that none is kept.

    A batch holds `image` (B, 3, size, size) uint8, `path`, and `reason`: empty, or why the file could not be read, in
    which case the image is black.

    Args:
        paths: The files.
        geometry: What brings images to working size.
        batch_size: Images in a batch.
    """

    def __init__(self, paths: Sequence[str], geometry: Geometry, batch_size: int) -> None:
        self.paths = paths
        self.geometry = geometry
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.paths) / self.batch_size)

    def __getitem__(self, number: int) -> Batch:
        paths = self.paths[number * self.batch_size : (number + 1) * self.batch_size]
        with ThreadPoolExecutor(1 if get_worker_info() else os.cpu_count()) as pool:
            images, reasons = zip(*pool.map(self._read, paths), strict=True)
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        return {"image": pixels, "path": list(paths), "reason": list(reasons)}

    def _read(self, path: str) -> tuple[UInt8Array, str]:
        try:
            return read_image(Path(path), self.geometry), ""
        except UserError as error:
            reason = str(error).removeprefix(f"{Path(path)}: ")
        except Exception as error:  # whatever a decoder stumbles over in one file, the others are to be scored
            reason = f"{type(error).__name__}: {error}"
        return np.zeros((self.geometry.size, self.geometry.size, 3), np.uint8), reason


class ImageFiles(LightningDataModule):
    """Images to predict, of which each rank gets one stretch; the arguments are those of `FileBatches`.

    Args:
        paths: The files.
        geometry: What brings images to working size.
        batch_size: Images in a batch.
        num_workers: Processes that load; 0 loads in the main one.
    """

    def __init__(self, paths: Sequence[str], geometry: Geometry, batch_size: int, num_workers: int) -> None:
        super().__init__()
        self.paths = paths
        self.geometry = geometry
        self.batch_size = batch_size
        self.num_workers = num_workers

    def predict_dataloader(self) -> DataLoader[Batch]:
        """This rank's images, in order.

        Raises:
            UserError: If there are fewer images than ranks.
        """
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        count = len(self.paths)
        if count < ranks:
            raise UserError(f"{count} images for {ranks} processes. Ask for fewer --trainer.devices.")
        mine = self.paths[count * rank // ranks : count * (rank + 1) // ranks]
        return DataLoader(
            FileBatches(mine, self.geometry, self.batch_size),
            batch_size=None,  # an item is a batch
            num_workers=possible_workers(self.num_workers),
            pin_memory=torch.cuda.is_available(),
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Brings images from uint8 to [0, 1]."""
        image: Tensor = batch["image"]
        return batch | {"image": unit_range(image)}
