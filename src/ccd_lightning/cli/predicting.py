"""Options of `ccd predict` that are not Lightning's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from ccd_lightning.commands import expand
from ccd_lightning.errors import UserError

if TYPE_CHECKING:
    from ccd_lightning.data.datamodule import AnomalyDataModule
    from ccd_lightning.data.image_files import ImageFiles

PREDICT_HELP = """\
usage: ccd predict [--ckpt_path RUN] [--images PLACE ...] [options]

Scores images without reading labels: those given by --images, or the run's own test images.

  --ckpt_path RUN         a run's folder or a checkpoint; default: the newest finished run
  --images PLACE ...      files, pages ('ct.nii.gz[45]'), folders (with subfolders) and quoted patterns
                          ('scans/**/*.png')
  --output DIR            a folder without earlier predictions; default: the next RUN/predictions/version_N
  --overlays true|false   write each image with the map laid over it, at its original size; default: true
  --maps png|npy|tiff|nifti|none
                          write maps: png (16 bits, with the scale in maps.json) and npy at the detector's size, tiff
                          (float32) at the image's original size, nifti as volumes with the source's affine;
                          default: none

With --images, DIR contains
  predictions.csv         path, score, percentile, decision; rows are written while images are scored
  regions.csv             connected regions of each map above the pixel threshold, in pixels of the original image:
                          path, region, box, centre, area, peak, mean, outlined
  errors.csv              path and reason of each skipped image, if there are any
  overlays/, maps/        with the names and subfolders of the images

Exit code: 0 success; 2 error, such as no image found; 3 finished, but images that cannot be read were skipped.

Lightning's options, such as --trainer.accelerator gpu, --data.batch_size 64 and --data.num_workers 4:

"""
CHOICES = {"--maps": ("none", "png", "npy", "tiff", "nifti"), "--overlays": ("true", "false")}


@dataclass(frozen=True)
class ImagesRequest:
    """Which images to predict, and what to write.

    Attributes:
        paths: Paths of the images.
        output: Folder to write to. None for a new folder in the run.
        maps: File format of the maps.
        overlays: Whether to write overlays of the maps on the images.
    """

    paths: list[str]
    output: Path | None
    maps: Literal["png", "npy", "tiff", "nifti", "none"]
    overlays: bool


def take_images(argv: Sequence[str]) -> tuple[ImagesRequest | None, list[str]]:
    """Separates the options of `--images` from a command's other arguments.

    Args:
        argv: `predict` and its options.

    Returns:
        The request, None without `--images`, and the other arguments.

    Raises:
        UserError: If the value of an option is invalid, or no image is found.
    """
    given, rest = _take(argv, ("--images", "--output", *CHOICES))
    if "--images" not in given:
        if given:
            raise UserError(f"{next(iter(given))} goes with --images FILE, FOLDER or 'PATTERN'.")
        return None, rest
    patterns = given.pop("--images")
    if not any(patterns):
        raise UserError("--images names no file, folder or pattern. Give one, or leave the option out.")
    single = {name: choices[0] for name, choices in CHOICES.items()}
    for name, values in given.items():
        if len(values) != 1 or values[0] not in CHOICES.get(name, values):
            wanted = f"one of {', '.join(CHOICES[name])}" if name in CHOICES else "one folder"
            raise UserError(f"{name} {' '.join(values)}".rstrip() + f": expected {wanted}.")
        single[name] = values[0]
    from lightning.pytorch.utilities import rank_zero_only

    from ccd_lightning.data.image_files import look_for

    output = expand(single["--output"]) if "--output" in single else None
    maps = cast(Literal["png", "npy", "tiff", "nifti", "none"], single["--maps"])
    files, others = look_for(patterns)
    if others:
        rank_zero_only(print)(f"not scored: {others}")
    return ImagesRequest(files, output, maps, single["--overlays"] == "true"), rest


def _take(argv: Sequence[str], names: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Splits arguments into the values of some options, which extend to the next option, and the rest."""
    given: dict[str, list[str]] = {}
    rest: list[str] = []
    current = rest
    for arg in argv:
        name, equals, value = arg.partition("=")
        if name in names:
            current = given.setdefault(name, [])
            current.extend([value] * bool(equals))
        else:
            current = rest if arg.startswith("-") else current
            current.append(arg)
    return given, rest


def images_to_predict(paths: Sequence[str], data: AnomalyDataModule) -> ImageFiles:
    """Returns the images in files as batches, and prints how stacks, volumes and grey values are treated.

    Args:
        paths: Paths of the files.
        data: Data module of the run, which defines the preprocessing.
    """
    from lightning.pytorch.utilities import rank_zero_only

    from ccd_lightning.data.image_files import ImageFiles
    from ccd_lightning.data.stacks import describe_stacks, expand_files

    images, left_out = expand_files(paths, data.axis)
    if stacks := describe_stacks(map(Path, images)):
        rank_zero_only(print)(f"images: {stacks}{f'; not scored: {left_out}' if left_out else ''}")
    data.say_window()
    return ImageFiles(images, data.preprocessing, data.batch_size, data.num_workers)
