"""Exports a fitted detector to a file that does not need this package: ONNX or torch.export format."""

from __future__ import annotations

import io
import json
import logging
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ccd_lightning import __version__
from ccd_lightning.checkpoints import fingerprint
from ccd_lightning.data.loading import unit_range
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.errors import UserError
from ccd_lightning.models.content import whole
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.visualization.overlays import palette

OPSET = 18  # native opset of torch's exporter; includes Col2Im, which merges IGD's windows
METADATA = "metadata.json"  # name of the metadata in a torch.export file
INPUTS = {"uint8": torch.uint8, "float": torch.float32}
TOLERANCE = 1e-4

Outputs = dict[str, Tensor]
Scoring = Callable[..., Outputs]  # takes the inputs of the file, in order


class Scorer(nn.Module):
    """The module that is exported: a detector with its decision.

    Args:
        detector: A fitted detector, on the CPU.

    Attributes:
        inputs: Names of the inputs: `images`, and with a letterbox also `content`.
    """

    def __init__(self, detector: OneClassDetector) -> None:
        super().__init__()
        self.detector = detector
        self.decides = not bool(detector.threshold.isnan())
        letterbox = detector.preprocessing is not None and detector.preprocessing.fit == "letterbox"
        self.inputs = ("images", "content") if letterbox else ("images",)
        self.eval()

    def forward(self, images: Tensor, content: Tensor | None = None) -> Outputs:
        """Scores working images; with tiling, all tiles of the batch at once.

        Args:
            images: Images (B, 3, H, W), uint8 from 0 to 255 or float32 from 0 to 1.
            content: Content boxes without the letterbox padding: top, left, bottom and right in pixels, (B, 4) int64.
                None without padding.

        Returns:
            `score` (B,), `decision` (B,) bool, True for abnormal images, and `map` (B, H, W). There is no decision if
            the detector has no threshold.
        """
        scores, maps = self.detector(unit_range(images) if images.dtype == torch.uint8 else images, content)
        return {"score": scores, **self.decide(scores), "map": maps}

    def decide(self, scores: Tensor) -> Outputs:
        """Returns the entry `decision`, or {} if the detector has no threshold."""
        return {"decision": scores > self.detector.threshold} if self.decides else {}


def describe(detector: OneClassDetector, pixel_type: str) -> dict[str, str]:
    """Returns the metadata of the file: what its users must know, as text.

    Args:
        detector: Detector with known preprocessing.
        pixel_type: Type of the input pixels, "uint8" or "float".

    Raises:
        UserError: If the preprocessing of the detector is unknown.
    """
    if detector.preprocessing is None:
        raise UserError("The checkpoint contains no config, so the image size is unknown. Fit the run again.")
    decides = not bool(detector.threshold.isnan())
    held_out = f"the {detector.quantile:g} quantile of the scores of {len(detector.normal_scores)} held-out images"
    limits = detector.map_limits.tolist()
    return {
        "version": __version__,
        "model": type(detector).__name__,
        "encoder": fingerprint(*detector.encoders),
        "input": "uint8, 0 to 255" if pixel_type == "uint8" else "float32, 0 to 1",
        "size": detector.preprocessing.size_in_words,
        "fit": detector.preprocessing.fit,
        "tiles": json.dumps(_tiles(detector.preprocessing)),
        "crop": json.dumps(detector.preprocessing.crop),
        "window": json.dumps(detector.preprocessing.window),
        "resize": "crop, then bilinear with antialiasing, as Pillow's Image.resize",
        "map_limits": json.dumps(None if math.isnan(limits[1]) else limits),
        "map_colours": palette().hex(),
        "threshold": repr(detector.threshold.item()) if decides else "",
        "threshold_rule": held_out if decides else "none: the run was fitted without validation",
    }


def write_onnx(detector: OneClassDetector, file: Path, pixel_type: str) -> Scoring:
    """Writes an ONNX file, with separate weights in `FILE.data` if it would be larger than 2 GB.

    Args:
        detector: Detector to export.
        file: File to write.
        pixel_type: Type of the input pixels, "uint8" or "float".

    Returns:
        Function that scores images with the file.
    """
    metadata, scorer = describe(detector, pixel_type), Scorer(detector)
    example = _example(scorer, pixel_type)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="# The axis name: batch will not be used")  # both inputs use it
        program = torch.onnx.export(
            scorer,
            example,
            input_names=list(scorer.inputs),
            output_names=list(scorer(*example)),
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes={name: {0: "batch"} for name in scorer.inputs},
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # removes paths of source files
    program.model.metadata_props.update(metadata)
    program.save(file)
    return open_onnx(file)


def write_torch(detector: OneClassDetector, file: Path, pixel_type: str) -> Scoring:
    """Writes a file for `torch.export.load`; arguments and return value are those of `write_onnx`."""
    metadata = json.dumps(describe(detector, pixel_type), indent=2)
    scorer, batch = Scorer(detector), torch.export.Dim("batch", min=1)
    example = _example(scorer, pixel_type)
    with torch.no_grad():
        scorer(*example)  # caches the grids of the encoder, whose computation must not be exported
    shapes = {name: {0: batch} for name in scorer.inputs}
    program = torch.export.export(scorer, example, dynamic_shapes=shapes, strict=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No complete tensor found")  # harmless on the CPU
        torch.export.save(program, content := io.BytesIO(), extra_files={METADATA: metadata})
    file.write_bytes(content.getbuffer())  # torch itself would crash the process on a full disk
    scoring: Scoring = torch.export.load(file).module()
    return scoring


def _example(scorer: Scorer, pixel_type: str) -> tuple[Tensor, ...]:
    assert scorer.detector.preprocessing is not None
    size = scorer.detector.preprocessing.shape
    given = torch.zeros(2, 3, *size, dtype=INPUTS[pixel_type]), whole(2, size, torch.device("cpu")).contiguous()
    return given[: len(scorer.inputs)]


def _tiles(preprocessing: Preprocessing) -> dict[str, float] | None:
    """Returns the tiling with the overlap in pixels; None without tiling."""
    tiles = preprocessing.tiling
    return None if tiles is None else {"side": tiles.side, "overlap": tiles.shared, "top": tiles.top}


def open_onnx(file: Path, threads: int = 0) -> Scoring:
    """Opens a file written by `write_onnx`, with onnxruntime on the CPU.

    Args:
        file: File to open.
        threads: Number of threads; 0 uses one per core.

    Returns:
        Function that scores images with the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    inputs = [given.name for given in session.get_inputs()]

    def score(*given: Tensor) -> Outputs:
        found: list[Any] = session.run(None, {name: one.numpy() for name, one in zip(inputs, given, strict=True)})
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    return score


@torch.no_grad()
def greatest_difference(scoring: Scoring, detector: OneClassDetector, *given: Tensor) -> float:
    """Compares the scores and maps of an exported file with those of the detector, for a batch and its first image.

    Args:
        scoring: Function returned when the file was written.
        detector: Detector that was exported.
        given: Inputs of the file: images (B, 3, H, W) of its pixel type, and with a letterbox content boxes (B, 4).

    Returns:
        The greatest absolute difference of a score or map value, relative to the range of the detector's maps (their
        largest minus their smallest value); infinite if a decision does not match score and threshold.
    """
    scorer = Scorer(detector)
    differences = []
    for batch in (given, [one[:1] for one in given]):
        found, expected = scoring(*batch), scorer(*batch)
        span = float(expected["map"].max() - expected["map"].min()) or 1.0
        differences += [(found[name] - expected[name]).abs().max() / span for name in ("score", "map")]
        if not all(torch.equal(found[name], right) for name, right in scorer.decide(found["score"]).items()):
            return float("inf")
    return float(torch.stack(differences).max())  # NaN if any difference is NaN
