"""A fitted detector as a file that needs none of this code: ONNX, or torch.export's own format."""

from __future__ import annotations

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
from ccd_lightning.errors import UserError
from ccd_lightning.modules.detector import OneClassDetector
from ccd_lightning.visualization.overlays import palette

OPSET = 18  # what torch translates to; it has Col2Im, with which IGD's windows are put together again
METADATA = "metadata.json"  # in a file of torch.export
INPUTS = {"uint8": torch.uint8, "float": torch.float32}
TOLERANCE = 1e-4

Outputs = dict[str, Tensor]
Scoring = Callable[[Tensor], Outputs]


class Scorer(nn.Module):
    """What is exported: a detector with its decision.

    Args:
        detector: A fitted detector, on the CPU.
    """

    def __init__(self, detector: OneClassDetector) -> None:
        super().__init__()
        self.detector = detector
        self.decides = not bool(detector.threshold.isnan())
        self.eval()

    def forward(self, images: Tensor) -> Outputs:
        """Scores images (B, 3, H, W), uint8 from 0 to 255 or float32 from 0 to 1.

        Returns:
            `score` (B,), `decision` (B,) bool, True where abnormal, and `map` (B, H, W). There is no decision where the
            detector has no threshold.
        """
        scores, maps = self.detector.score(unit_range(images) if images.dtype == torch.uint8 else images)
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
        "size": str(detector.preprocessing.size),
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
    metadata, scorer, example = describe(detector, kind), Scorer(detector), _example(detector, kind)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        scorer,
        (example,),
        input_names=["images"],
        output_names=list(scorer(example)),
        opset_version=OPSET,
        dynamo=True,
        dynamic_shapes={"images": {0: "batch"}},
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
    shapes, scorer, example = (
        {"images": {0: torch.export.Dim("batch", min=1)}},
        Scorer(detector),
        _example(detector, kind),
    )
    with torch.no_grad():
        scorer(example)  # finds where the encoder's units look, which is no part of what is exported
    program = torch.export.export(scorer, (example,), dynamic_shapes=shapes, strict=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No complete tensor found")  # harmless on the CPU
        torch.export.save(program, file, extra_files={METADATA: metadata})
    scoring: Scoring = torch.export.load(file).module()
    return scoring


def _example(detector: OneClassDetector, kind: str) -> Tensor:
    assert detector.preprocessing is not None
    return torch.zeros(2, 3, *detector.preprocessing.shape, dtype=INPUTS[kind])


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

    def score(images: Tensor) -> Outputs:
        found: list[Any] = session.run(None, {"images": images.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    return score


@torch.no_grad()
def greatest_difference(scoring: Scoring, detector: OneClassDetector, images: Tensor) -> float:
    """How far a file's scores and maps are from the detector's own, of all images and of the first one alone.

    Args:
        scoring: What writing the file returned.
        detector: What was exported.
        images: (B, 3, H, W), of the kind that the file takes.

    Returns:
        The greatest absolute difference of a score or a map's pixel, relative to the range of the detector's maps (the
        largest less the smallest pixel of all); infinite where a decision is not that of score and threshold.
    """
    scorer = Scorer(detector)
    differences = []
    for batch in (images, images[:1]):
        found, expected = scoring(batch), scorer(batch)
        span = float(expected["map"].max() - expected["map"].min()) or 1.0
        differences += [(found[name] - expected[name]).abs().max() / span for name in ("score", "map")]
        if not all(torch.equal(found[name], right) for name, right in scorer.decide(found["score"]).items()):
            return float("inf")
    return float(torch.stack(differences).max())  # NaN where there is any
