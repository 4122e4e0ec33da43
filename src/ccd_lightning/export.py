"""A fitted detector as a file that does not need this package: ONNX, or torch.export's own format."""

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

OPSET = 18  # what torch translates to; it has Col2Im, with which IGD's windows are put together again
METADATA = "metadata.json"  # in a file of torch.export
INPUTS = {"uint8": torch.uint8, "float": torch.float32}
TOLERANCE = 1e-4

Outputs = dict[str, Tensor]
Scoring = Callable[..., Outputs]  # of the inputs that the file takes, in their order


class Scorer(nn.Module):
    """What is exported: a detector with its decision.

    Args:
        detector: A fitted detector, on the CPU.

    Attributes:
        inputs: The names of what it takes: `images`, and with a letterbox `content`.
    """

    def __init__(self, detector: OneClassDetector) -> None:
        super().__init__()
        self.detector = detector
        self.decides = not bool(detector.threshold.isnan())
        letterbox = detector.preprocessing is not None and detector.preprocessing.fit == "letterbox"
        self.inputs = ("images", "content") if letterbox else ("images",)
        self.eval()

    def forward(self, images: Tensor, content: Tensor | None = None) -> Outputs:
        """Scores working images; where they are to be cut into tiles, all tiles of the batch at once.

        Args:
            images: (B, 3, H, W), uint8 from 0 to 255 or float32 from 0 to 1.
            content: Top, left, bottom and right of what of each is the image and not the margin of a letterbox, in
                pixels, (B, 4) int64; None where there is no margin.

        Returns:
            `score` (B,), `decision` (B,) bool, True where abnormal, and `map` (B, H, W). There is no decision where the
            detector has no threshold.
        """
        scores, maps = self.detector(unit_range(images) if images.dtype == torch.uint8 else images, content)
        return {"score": scores, **self.decide(scores), "map": maps}

    def decide(self, scores: Tensor) -> Outputs:
        """The entry `decision`, or none."""
        return {"decision": scores > self.detector.threshold} if self.decides else {}


def describe(detector: OneClassDetector, kind: str) -> dict[str, str]:
    """What a user of the file has to know, as text: it becomes the file's metadata.

    Args:
        detector: It knows the size of its images.
        kind: "uint8" or "float", the pixels to be given.

    Raises:
        UserError: If the detector does not know the size.
    """
    if detector.preprocessing is None:
        raise UserError("The checkpoint holds no config, so the size of its images is not known. Fit the run again.")
    decides = not bool(detector.threshold.isnan())
    held_out = f"the {detector.quantile:g} quantile of the scores of {len(detector.normal_scores)} held-out images"
    limits = detector.map_limits.tolist()
    return {
        "version": __version__,
        "model": type(detector).__name__,
        "encoder": fingerprint(*detector.encoders),
        "input": "uint8, 0 to 255" if kind == "uint8" else "float32, 0 to 1",
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


def write_onnx(detector: OneClassDetector, file: Path, kind: str) -> Scoring:
    """Writes ONNX, with weights beside it in `FILE.data` where it would be larger than 2 GB.

    Args:
        detector: To export.
        file: To write.
        kind: "uint8" or "float", the pixels to be given.

    Returns:
        Scores with the file.
    """
    metadata, scorer = describe(detector, kind), Scorer(detector)
    example = _example(scorer, kind)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="# The axis name: batch will not be used")  # both inputs have it
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
        node.metadata_props.clear()  # where in which source file it comes from
    program.model.metadata_props.update(metadata)
    program.save(file)
    return open_onnx(file)


def write_torch(detector: OneClassDetector, file: Path, kind: str) -> Scoring:
    """Writes what `torch.export.load` reads; arguments and return value are those of `write_onnx`."""
    metadata = json.dumps(describe(detector, kind), indent=2)
    scorer, batch = Scorer(detector), torch.export.Dim("batch", min=1)
    example = _example(scorer, kind)
    with torch.no_grad():
        scorer(*example)  # finds where the encoder's units look, which is no part of what is exported
    shapes = {name: {0: batch} for name in scorer.inputs}
    program = torch.export.export(scorer, example, dynamic_shapes=shapes, strict=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No complete tensor found")  # harmless on the CPU
        torch.export.save(program, content := io.BytesIO(), extra_files={METADATA: metadata})
    file.write_bytes(content.getbuffer())  # torch itself ends the process where the disk is full
    scoring: Scoring = torch.export.load(file).module()
    return scoring


def _example(scorer: Scorer, kind: str) -> tuple[Tensor, ...]:
    assert scorer.detector.preprocessing is not None
    size = scorer.detector.preprocessing.shape
    given = torch.zeros(2, 3, *size, dtype=INPUTS[kind]), whole(2, size, torch.device("cpu")).contiguous()
    return given[: len(scorer.inputs)]


def _tiles(preprocessing: Preprocessing) -> dict[str, float] | None:
    """The tiles, with the overlap in pixels; None where there are none."""
    tiles = preprocessing.tiling
    return None if tiles is None else {"side": tiles.side, "overlap": tiles.shared, "top": tiles.top}


def open_onnx(file: Path, threads: int = 0) -> Scoring:
    """Opens a file that `write_onnx` wrote, with onnxruntime on the CPU.

    Args:
        file: To open.
        threads: How many to use; 0 for as many as there are cores.
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
    """How far a file's scores and maps are from the detector's own, of all images and of the first one alone.

    Args:
        scoring: What writing the file returned.
        detector: What was exported.
        given: What the file takes: images (B, 3, H, W) of its kind, and with a letterbox content (B, 4).

    Returns:
        The greatest absolute difference of a score or a map's pixel, relative to the range of the detector's maps (the
        largest less the smallest pixel of all); infinite where a decision is not that of score and threshold.
    """
    scorer = Scorer(detector)
    differences = []
    for batch in (given, [one[:1] for one in given]):
        found, expected = scoring(*batch), scorer(*batch)
        span = float(expected["map"].max() - expected["map"].min()) or 1.0
        differences += [(found[name] - expected[name]).abs().max() / span for name in ("score", "map")]
        if not all(torch.equal(found[name], right) for name, right in scorer.decide(found["score"]).items()):
            return float("inf")
    return float(torch.stack(differences).max())  # NaN where there is any
