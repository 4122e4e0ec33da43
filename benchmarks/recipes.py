"""What pretraining adds to ImageNet weights: one recipe on one set and seed, and the detectors on its features.

    python benchmarks/recipes.py --root DIR --seed 0                                    # ImageNet weights alone
    python benchmarks/recipes.py --root DIR --seed 0 --steps 120                        # after CCD with MedMix
    python benchmarks/recipes.py --root DIR --seed 0 --steps 120 --method SimCLR --batch 32 --l2_sp 0.01

Features of tf_efficientnet_lite0 at 16 x 16 positions, averaged over 3 x 3 units, each level of one length. A row per
detector: image AUROC of the test images (of each kind too), pixel AUROC where there are masks, and the AUROC of
held-out images against the same with pseudo-lesions. Nothing is kept but the rows, one JSON object per line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ccd_lightning.data.dataset import AnomalyDataset, EpochIndex
from ccd_lightning.data.datasets import Folder
from ccd_lightning.encoder_config import EncoderConfig, TrainedEncoderConfig
from ccd_lightning.models.heads import AugmentationHead, PositionHead, ProjectionHead
from ccd_lightning.models.patch_features import FeatureConfig
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.modules.mahalanobis import Mahalanobis
from ccd_lightning.modules.neighbours import Neighbours
from ccd_lightning.modules.padim import PaDiM
from ccd_lightning.modules.pmsacl import PMSACL
from ccd_lightning.modules.statistics import StatisticsDetector
from ccd_lightning.transforms import strong
from ccd_lightning.transforms.medmix import MedMix, paste_lesions
from ccd_lightning.transforms.pretext import PretextViews

NETWORK = "tf_efficientnet_lite0"
BATCH = 32
PSEUDO = 160  # held-out images with pseudo-lesions, about


class Views(Dataset[dict[str, Tensor]]):
    """The batches of a number of steps, each image's views drawn anew."""

    def __init__(self, images: AnomalyDataset, count: int, seed: int) -> None:
        self.images, self.count = images, count
        draw = torch.Generator().manual_seed(seed)
        epochs = -(-count // len(images))
        self.order = torch.cat([torch.randperm(len(images), generator=draw) for _ in range(epochs)]).tolist()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        item = self.images[EpochIndex(index // len(self.images), self.order[index])]
        return {name: item[name] for name in ("views", "augmentation", "patches", "position") if name in item}


def pretrain(data: Folder, options: argparse.Namespace) -> dict[str, Tensor]:
    """The encoder's weights after pretraining."""
    changed = {name: getattr(options, name) for name in ("lr_scale", "batch_norm", "freeze", "l2_sp")}
    encoder = TrainedEncoderConfig(NETWORK, "imagenet", **changed)
    alone: dict[str, Any] = {"augmentation_weight": 0, "position_weight": 0} if options.method == "SimCLR" else {}
    module = (PMSACL if options.method == "PMSACL" else CCD)(
        encoder=encoder,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=options.lr, weight_decay=1e-4),
        **alone,
    )
    if options.level is not None:
        read_level(module, options.level)
    loader = DataLoader(Views(data.datasets["train"], options.batch * options.steps, options.seed), options.batch)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    Trainer(max_steps=options.steps, use_distributed_sampler=False, **quiet).fit(module, loader)  # type: ignore[arg-type]
    return dict(module.encoder.state_dict())


def read_level(module: CCD, level: int) -> None:
    """Makes all heads read the mean of a level's map, in place of the vector behind the last level."""
    encoder = module.encoder
    encoder.features_size = size = encoder.channels[level]
    encoder.features = lambda images: encoder.maps(images, [level])[0].mean(dim=(2, 3))  # type: ignore[method-assign]
    module.projection, module.position = ProjectionHead(size), PositionHead(size)
    module.augmentation = AugmentationHead(size, module.augmentation.out_features)


def batches(dataset: AnomalyDataset) -> Iterator[Tensor]:
    """Images (B, 3, H, W) in [0, 1]."""
    for start in range(0, len(dataset), BATCH):
        yield torch.from_numpy(dataset.pixels(start, start + BATCH)).float() / 255


def detectors(seed: int, tops: Sequence[float]) -> dict[str, StatisticsDetector]:
    """What is fitted to the features."""
    encoder, local = EncoderConfig(NETWORK, "imagenet"), FeatureConfig(positions=16, window=3, normalise=True)
    whole = FeatureConfig((1, 2, 3, 4), 16, 3, normalise=True)
    made: dict[str, StatisticsDetector] = {
        f"Neighbours, top {top:g}": Neighbours(encoder, local, top=top) for top in tops
    }
    for top in (0, 0.1):
        torch.manual_seed(seed)  # its channels
        made[f"PaDiM, top {top:g}"] = PaDiM(encoder, local, top=top, blur=0)
    made["Mahalanobis"] = Mahalanobis(encoder, whole)
    made["Neighbours, pooled"] = Neighbours(encoder, whole, pooled=True)
    return made


@torch.no_grad()
def measure(detector: StatisticsDetector, data: Folder, seed: int) -> dict[str, float]:
    """Fits a detector, and says how well it tells images apart."""
    for images in batches(data.datasets["train"]):
        detector.collect(images)
    detector.fit_statistics()
    test = data.datasets["test"]
    scores, maps = (torch.cat(parts) for parts in zip(*map(detector, batches(test)), strict=True))
    kinds = [row.anomaly_type if row.label else "" for row in test.rows]
    found = {"image": roc_auc_score([bool(kind) for kind in kinds], scores)}
    for kind in sorted(set(kinds) - {""}) if len(set(kinds)) > 2 else []:
        chosen = [index for index, own in enumerate(kinds) if own in ("", kind)]
        found[kind] = roc_auc_score([bool(kinds[index]) for index in chosen], scores[chosen])
    masks = torch.stack([test[EpochIndex(0, index)]["mask"] for index in range(len(test))])
    if masks.any():
        found["pixel"] = roc_auc_score(masks.flatten()[::7], maps.flatten()[::7])
    held_out = torch.cat(list(batches(data.datasets["val"])))
    held_out = held_out.repeat(max(1, PSEUDO // len(held_out)), 1, 1, 1)[:PSEUDO]
    pseudo = paste_lesions(held_out, torch.Generator().manual_seed(seed))[0]
    both = torch.cat([detector(images)[0] for part in (held_out, pseudo) for images in torch.split(part, BATCH)])
    found["pseudo"] = roc_auc_score([0] * len(held_out) + [1] * len(held_out), both)
    return {name: round(float(value), 4) for name, value in found.items()}


def main(options: argparse.Namespace) -> None:
    """Prints a line per detector."""
    seed_everything(options.seed, verbose=False)
    named, pairs = ("Identity", 0) if options.method == "SimCLR" else (options.family, 4)
    family = {"MedMix": MedMix}.get(named) or getattr(strong, named)
    views = PretextViews(size=options.view, scale=tuple(options.scale), patch_size=32, pairs=pairs, family=family())
    with tempfile.TemporaryDirectory() as folder:
        data = Folder(options.root, size=options.size, views=views, seed=options.seed, cache_dir=folder)
        data.setup("fit")
        data.setup("test")
        weights = pretrain(data, options) if options.steps else None
        for name, detector in detectors(options.seed, options.tops).items():
            detector.setup("fit")
            if weights:
                detector.encoder.load_state_dict(weights)
            row = {"set": Path(options.root).name, **vars(options)}
            del row["root"], row["tops"]
            print(json.dumps(row | {"detector": name} | measure(detector.eval(), data, options.seed)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--tops", type=float, nargs="+", default=(0, 0.1, 1), help="of the score of Neighbours")
    parser.add_argument("--steps", type=int, default=0, help="of pretraining; 0 takes the ImageNet weights as they are")
    parser.add_argument("--batch", type=int, default=8, help="images in a step")
    parser.add_argument("--method", default="CCD", choices=["CCD", "SimCLR", "PMSACL"])
    parser.add_argument("--family", default="MedMix", help="of strong augmentations")
    parser.add_argument("--view", type=int, default=64, help="side of a view in pixels")
    parser.add_argument("--scale", type=float, nargs=2, default=(0.1, 0.7), help="of a view, as shares of the image")
    parser.add_argument("--level", type=int, help="that the heads read; left out, the vector behind the last one")
    parser.add_argument("--freeze", type=int, default=0, help="levels that are frozen")
    parser.add_argument("--l2_sp", type=float, default=0.0, help="weight of the distance from the ImageNet weights")
    parser.add_argument("--batch_norm", default="keep", choices=["keep", "calibrate"])
    parser.add_argument("--lr", type=float, default=1e-3, help="of the heads")
    parser.add_argument("--lr_scale", type=float, default=0.1, help="of the encoder, as a share")
    main(parser.parse_args())
