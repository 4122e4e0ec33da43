"""Where IGD loses what an encoder knows: how well features tell abnormal images, without any detector.

    python benchmarks/detection.py colonoscopy --detectors igd                 # makes the encoders
    ccd data synthesize --seed 1 --root .bench/other --test_good 100 --test_abnormal 105
    python benchmarks/igd_features.py .bench/other

The squared Mahalanobis distance from the training images' features, within as many principal components as IGD has
latents and within all of them; of the windows that IGD's local scale scores, the largest. Features are means over
positions: of the last layer, as IGD's are, or of layers 1 to 3, side by side, which are PaDiM's. The images are not
those that `detection.py` tests on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from ccd_lightning.data.datasets import Folder
from ccd_lightning.encoder_config import EncoderConfig, initialise_encoder
from ccd_lightning.metrics.threshold_metrics import partial_auc, score_counts
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.igd.latents import whiten
from ccd_lightning.models.igd.settings import WindowScale
from ccd_lightning.transforms.patches import windows
from detection import pretrained
from intervals import interval

LATENTS = 128  # IGD's
BRANCHES = {"untrained": None, "global": "", "local": "_local"}  # and their configs' endings
FIRST = sum(Encoder().channels[1:4])
LAYERS = {"the last layer": slice(FIRST, None), "layers 1 to 3": slice(FIRST)}  # of the features side by side


@torch.no_grad()
def describe(encoder: Encoder, batches: Iterable[Tensor], cut: bool) -> Tensor:
    """All layers' features of images (N, 1, F), or of their windows (N, W, F)."""
    found = []
    for images in batches:
        views = windows(images, WindowScale.size, WindowScale.stride).flatten(0, 2) if cut else images
        pooled = torch.cat([level.mean(dim=(2, 3)) for level in encoder.maps(views, (1, 2, 3, 4))], dim=1)
        found.append(pooled.view(len(images), -1, pooled.shape[1]))
    return torch.cat(found)


def distances(normal: Tensor, others: Tensor, components: int) -> Tensor:
    """The largest squared Mahalanobis distance of each image's features (N, W, F) from the normal ones: (N,)."""
    layer = nn.Linear(normal.shape[-1], components)
    whiten(layer, lambda: iter(normal))
    with torch.no_grad():
        return layer(others).square().sum(dim=2).amax(dim=1)  # type: ignore[no-any-return]


def tell(encoder: Encoder, data: Folder, cut: bool) -> list[list[float]]:
    """Image AUROC by layers, within as many components as there are latents, and within all."""
    normal = describe(encoder, (images.pixels for images in data.normal_images(torch.device("cpu"))[0]), cut)
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.test_dataloader()]
    others = describe(encoder, (batch["image"] for batch in batches), cut)
    labels = np.concatenate([np.asarray(batch["label"]) for batch in batches])
    found = []
    for layers in LAYERS.values():
        fitted, tested = normal[..., layers], others[..., layers]
        sizes = (min(LATENTS, fitted.shape[-1]), fitted.shape[-1])
        scores = [distances(fitted, tested, size).double().numpy() for size in sizes]
        found.append([float(partial_auc(*score_counts(labels, one))) for one in scores])
    return found


def main(root: str, seeds: int) -> None:
    """Prints the table."""
    data = Folder(root, size=128, batch_size=32)
    for stage in ("fit", "test"):
        data.setup(stage)
    print(f"| encoder | of | features | {LATENTS} components | all components |\n| --- | --- | --- | --- | --- |")
    for name, ending in BRANCHES.items():
        for cut, seen in ((False, "the image"), (True, "windows")):
            found = []
            for seed in range(seeds):
                torch.manual_seed(seed)
                encoder = Encoder()
                weights = None if ending is None else str(pretrained("colonoscopy", ending, seed))
                initialise_encoder(encoder, EncoderConfig(weights=weights))
                found.append(tell(encoder.eval(), data, cut))
            by_layers = np.array(found).transpose(1, 2, 0)  # layers, components, seeds
            for title, (few, every) in zip(LAYERS, by_layers, strict=True):
                print(f"| {name} | {seen} | {title} | {interval(few)} | {interval(every)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="a folder with other images of the same kind")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.root, arguments.seeds)
