"""Neighbours beside anomalib's PatchCore: scores on equal features, AUROC of each on its own, and time.

    python benchmarks/patchcore.py --root DIR            # of a set in the common folder layout

It needs anomalib (2.7 or newer) beside this package, best in an environment of its own. Both have the same untrained
ResNet-18, layers 2 and 3, averaged over 3 x 3 units. They differ in how the borders are averaged, and in where
layer 3 is brought to: anomalib stacks units by their number, this package by where they look.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from anomalib.models.image.patchcore.torch_model import PatchcoreModel  # type: ignore[import-not-found]
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ccd_lightning.data.datasets import Folder
from ccd_lightning.models.patch_features import FeatureConfig
from ccd_lightning.modules.neighbours import Neighbours

BATCH = 32
NEIGHBOURS = 9


def images(root: str, size: int, most: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Training and test images (N, 3, size, size) in [0, 1], at most so many of each, and the labels of the latter."""
    data = Folder(root, size=size, check_leaks=False)
    data.setup("fit")
    data.setup("test")
    rng = np.random.default_rng(0)
    found = []
    for side in ("train", "test"):
        dataset = data.datasets[side]
        chosen = np.sort(rng.permutation(len(dataset))[:most])
        found.append(torch.from_numpy(dataset.pixels(0, len(dataset))[chosen]).float() / 255)
    return found[0], found[1], np.array([data.datasets["test"].rows[index].label for index in chosen])


def timed(work: Callable[[], Tensor | None]) -> tuple[Tensor | None, float]:
    """What some work returns, and how many seconds it takes."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


@torch.no_grad()
def compare(train: Tensor, test: Tensor, labels: np.ndarray, coreset: float | None) -> None:
    """Prints a row of the table."""
    torch.manual_seed(0)
    count = len(train) * (train.shape[-1] // 8) ** 2
    ours = Neighbours(
        features=FeatureConfig(layers=(2, 3), window=3),
        window=None,
        bank_size=int(coreset * count) if coreset else None,
        reweight=NEIGHBOURS,
        top=0,
    ).eval()
    peer = PatchcoreModel(["layer2", "layer3"], "resnet18", pre_trained=False, num_neighbors=NEIGHBOURS)
    peer.feature_extractor.feature_extractor.load_state_dict(ours.encoder.network.state_dict(), strict=False)

    def fit_ours() -> None:
        for batch in torch.split(train, BATCH):
            ours.collect(batch)
        ours.fit_statistics()

    def fit_peer() -> None:
        peer.train()
        peer.feature_extractor.eval()
        for batch in torch.split(train, BATCH):
            peer(ours.encoder.normalise(batch))
        if coreset:
            peer.subsample_embedding(coreset)
        else:
            peer.memory_bank = torch.vstack(peer.embedding_store)
        peer.eval()

    def score_peer() -> Tensor:
        return torch.cat(
            [peer(ours.encoder.normalise(batch)).pred_score.flatten() for batch in torch.split(test, BATCH)]
        )

    _, fit_time = timed(fit_ours)
    scores, score_time = timed(lambda: torch.cat([ours(batch)[0] for batch in torch.split(test, BATCH)]))
    _, peer_fit_time = timed(fit_peer)
    peer_scores, peer_score_time = timed(score_peer)
    peer.memory_bank = ours.comparison.bank.features[0]  # anomalib's search and weighting, on our features
    equal = torch.cat([scores_of(peer, ours.features(batch)) for batch in torch.split(test, BATCH)])
    assert scores is not None
    assert peer_scores is not None
    difference = float(((equal - scores).abs() / scores).max())
    print(
        f"| {coreset or 'all'} | {difference:.1e} | {roc_auc_score(labels, scores):.3f} |"
        f" {roc_auc_score(labels, equal):.3f} | {roc_auc_score(labels, peer_scores):.3f} |"
        f" {fit_time / peer_fit_time:.2f} | {score_time / peer_score_time:.2f} |"
    )


def scores_of(peer: PatchcoreModel, features: Tensor) -> Tensor:
    """What anomalib makes of features (B, D, h, w)."""
    flat = peer.reshape_embedding(features)
    distances, indices = peer.nearest_neighbors(flat, n_neighbors=1)
    shape = len(features), -1
    scores: Tensor = peer.compute_anomaly_score(distances.reshape(shape), indices.reshape(shape), flat)
    return scores.flatten()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--most", type=int, default=200, help="images to train on and to test on, at most")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = images(options.root, options.size, options.most)
    print(
        "| coreset | difference of scores on equal features | AUROC, ours | anomalib's scoring of our features |",
        end="",
    )
    print(" anomalib | time to fit, ours / anomalib | to score |\n| --- | --- | --- | --- | --- | --- | --- |")
    for share in (None, 0.1):
        compare(*data, share)
