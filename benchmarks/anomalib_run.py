"""anomalib's fit and test of a folder, for peers.py: anomalib_run.py ROOT WEIGHTS padim|patchcore fit|test."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from anomalib.data import Folder  # type: ignore[import-not-found]
from anomalib.engine import Engine  # type: ignore[import-not-found]
from anomalib.models import Padim, Patchcore  # type: ignore[import-not-found]
from anomalib.pre_processing import PreProcessor  # type: ignore[import-not-found]
from torchvision.transforms.v2 import Resize


def build(name: str, weights: str) -> Any:
    """A model with a ResNet-18 of given weights, for images of 256 px."""
    torch.manual_seed(0)
    processor = PreProcessor(transform=Resize((256, 256), antialias=True))
    shared = {"backbone": "resnet18", "pre_trained": False, "pre_processor": processor}
    if name == "padim":
        model = Padim(**shared)
    else:
        model = Patchcore(layers=["layer2", "layer3"], coreset_sampling_ratio=0.1, **shared)
    model.model.feature_extractor.feature_extractor.load_state_dict(torch.load(weights), strict=False)
    return model


def run(root: Path, weights: str, name: str, until: str) -> None:
    """Fits, and tests with pictures; its defaults take half of the test images for thresholds."""
    kinds = sorted(path.name for path in (root / "test").iterdir() if path.name != "good")
    data = Folder(
        "set",
        root=root,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir=[f"test/{kind}" for kind in kinds],
        mask_dir=[f"ground_truth/{kind}" for kind in kinds],
        train_batch_size=32,
        eval_batch_size=32,
        num_workers=0,
        seed=0,
    )
    model = build(name, weights)
    engine = Engine(default_root_dir="anomalib", accelerator="cpu", devices=1, logger=False)
    engine.fit(model, datamodule=data)
    if until == "test":
        print("AUROC", engine.test(model, datamodule=data)[0]["image_AUROC"])


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    run(Path(sys.argv[1]), *sys.argv[2:])
