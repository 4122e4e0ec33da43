"""`ccd export`: writes a fitted detector to a file that does not need this package."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from rich.console import Console

from ccd_lightning.cli.arguments import Arguments, path_type
from ccd_lightning.commands import expand
from ccd_lightning.errors import UserError
from ccd_lightning.extras import pip_install
from ccd_lightning.reading import read_text
from ccd_lightning.runs import CONFIG, MANIFEST, find_checkpoint, newest_run, run_folder
from ccd_lightning.writing import put_in_place, scratch, short_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ccd_lightning.data.preprocessing import Preprocessing
    from ccd_lightning.export import Scoring
    from ccd_lightning.modules.detector import OneClassDetector

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
CHECKED = 3  # number of images for the check


def run_export(argv: list[str]) -> None:
    """Exports a detector, and checks the file against torch.

    Raises:
        UserError: If there is no such detector, a package is missing, or the file gives different scores.
    """
    arguments = _parser().parse_args(argv)
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if arguments.format == "onnx" and missing:
        raise UserError(f"ONNX needs {', '.join(missing)}. Install it with: {pip_install('export')}")
    checkpoint = find_checkpoint(arguments.ckpt_path or newest_run())
    file = arguments.output or run_folder(checkpoint) / f"detector{SUFFIXES[arguments.format]}"
    if file.suffix != SUFFIXES[arguments.format] or not file.parent.is_dir():
        raise UserError(
            f"{file}: --output must be a file in a folder that exists, named *{SUFFIXES[arguments.format]}."
        )
    print(f"export: {os.path.relpath(checkpoint)}")
    write_checked(checkpoint, file, arguments.format, arguments.input, arguments.trust)
    if arguments.format == "onnx":
        print(f"Next: python examples/score_onnx.py {quote(os.path.relpath(file))} IMAGE ...")


def write_checked(checkpoint: Path, file: Path, form: str, pixel_type: str, trust: bool = False) -> None:
    """Exports a detector, and discards the file if it gives different scores. An older file is then kept.

    Args:
        checkpoint: Path of the detector's checkpoint.
        file: Path of the file to write.
        form: "onnx" or "torch".
        pixel_type: Type of the input pixels, "uint8" or "float".
        trust: Whether to import unknown classes that the checkpoint names.
    """
    from ccd_lightning.export import TOLERANCE, Scorer, describe, greatest_difference, write_onnx, write_torch
    from ccd_lightning.modules.loading import load

    detector = load(checkpoint, trust)
    metadata = describe(detector, pixel_type)
    assert detector.preprocessing is not None
    images, content, origin = images_to_try(run_folder(checkpoint), detector.preprocessing)
    given = [images / 255 if pixel_type == "float" else images, content][: len(Scorer(detector).inputs)]
    # In a separate folder, because an ONNX file refers to its weights by file name.
    with scratch(file) as folder:
        folder.mkdir()
        written = folder / file.name
        with Console().status("Exporting, and checking"):
            scoring = _written(write_onnx if form == "onnx" else write_torch, detector, written, pixel_type)
            difference = greatest_difference(scoring, detector, *given)
        if not difference <= TOLERANCE:
            raise UserError(
                f"{file}: not written, because it scored {origin} differently from torch, by {difference:.1e} of the"
                f" maps' range ({TOLERANCE:.0e} is allowed). Try --format {'torch' if form == 'onnx' else 'onnx'}."
            )
        for part in sorted(folder.iterdir(), reverse=True):  # weights before the file that refers to them
            put_in_place(part, file.parent / part.name)
    outputs = "score, decision and map" if metadata["threshold"] else "score and map (the run has no threshold)"
    height, width = detector.preprocessing.shape
    boxes = ", and content (batch, 4) of int64" * (len(given) > 1)
    print(f"{os.path.relpath(file)}: images (batch, 3, {height}, {width}) of {metadata['input']}{boxes} -> {outputs}")
    print(f"Checked against torch on {origin}, together and one alone: differs by {difference:.1e} of the maps' range")


def _written(
    write: Callable[[OneClassDetector, Path, str], Scoring], detector: OneClassDetector, file: Path, kind: str
) -> Scoring:
    """Writes the file.

    Raises:
        UserError: If a class of the user's own cannot be exported.
    """
    try:
        return write(detector, file, kind)
    except Exception as error:  # of torch's exporter, whose message can have a hundred lines
        if isinstance(error, (OSError, UserError)) or type(detector).__module__.startswith("ccd_lightning."):
            raise
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(
            f"{type(detector).__name__} cannot be exported: {short_text(reason, 200)}. Write its score method with"
            " other operations; --debug shows the whole message."
        ) from error


def images_to_try(run: Path, preprocessing: Preprocessing) -> tuple[Tensor, Tensor, str]:
    """Returns a few of a run's test images, or noise if they are not available.

    Args:
        run: Folder of the run.
        preprocessing: Preprocessing of the detector.

    Returns:
        Images (3, 3, H, W) uint8, their content (3, 4), and a description.
    """
    import torch
    import yaml

    from ccd_lightning.data.images import read_placed

    try:
        paths = _test_images(run)
        chosen = paths[:: max(1, len(paths) // CHECKED)][:CHECKED]
        placed = [read_placed(path, preprocessing) for path in chosen]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, UserError):  # if a file is damaged
        placed = []
    if len(placed) == CHECKED:
        pixels = torch.stack([torch.tensor(one.pixels).permute(2, 0, 1) for one in placed]).contiguous()
        return pixels, torch.tensor([one.placement.content for one in placed]), f"{CHECKED} test images"
    height, width = preprocessing.shape
    noise = torch.randint(256, (CHECKED, 3, height, width), generator=torch.Generator().manual_seed(0))
    content = [preprocessing.place_size(size).content for size in ((width, height), (4, 3), (3, 4))]
    origin = f"{CHECKED} images of noise (the run's test images are not available)"
    return noise.to(torch.uint8), torch.tensor(content), origin


def _test_images(run: Path) -> list[Path]:
    """Returns the test images of the run's split, if they exist. Paths refer to the config's root or a folder below it.

    Raises:
        OSError: If the run's folder contains no config.
        UserError: If it contains no split.
    """
    import yaml

    from ccd_lightning.data.manifest import Manifest
    from ccd_lightning.data.recognition import possible_roots
    from ccd_lightning.data.sources import size_of

    root = yaml.safe_load(read_text(run / CONFIG))["data"]["init_args"]["root"]
    for folder in possible_roots(expand(root)):
        paths = [row.path for row in Manifest.read(run / MANIFEST, folder).select("test")]
        if paths and size_of(paths[0]) >= 0:
            return paths
    return []


def _parser() -> Arguments:
    parser = Arguments("ccd export", description="Write a detector to a file that scores images without this package.")
    parser.add_argument(
        "--ckpt_path",
        type=path_type,
        metavar="RUN",
        help="a run's folder, the folder of its versions, or a checkpoint file; default: the newest finished run",
    )
    parser.add_argument("--format", choices=tuple(SUFFIXES), default="onnx", help="default: onnx")
    parser.add_argument(
        "--input",
        choices=("uint8", "float"),
        default="uint8",
        help="pixels from 0 to 255, or from 0 to 1; default: uint8",
    )
    parser.add_argument(
        "--output", type=path_type, metavar="FILE", help="default: detector.onnx or .pt2 in the run's folder"
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="import classes of your own that the checkpoint names, which can run any code",
    )
    return parser
