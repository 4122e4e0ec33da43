"""Images from memory instead of folders: fit a detector on NumPy arrays, score others, save it and load it again.

python examples/numpy_arrays.py

Any dataset can take the place of the arrays here, such as one of Hugging Face `datasets`: a batch is a dict whose
`image` is (B, 3, H, W), float in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ccd_lightning.encoder_config import EncoderConfig
from ccd_lightning.modules.neighbours import Neighbours


class Arrays(Dataset[dict[str, Tensor]]):
    """Images of an array (N, H, W, 3) uint8, as items of a batch."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": torch.from_numpy(self.images[index]).permute(2, 0, 1).float() / 255}


def fit(normal: NDArray[np.uint8], held_out: NDArray[np.uint8], weights: str | None = "auto") -> Neighbours:
    """Fits a detector to normal images; held-out normal images set its threshold."""
    detector = Neighbours(EncoderConfig(weights=weights))
    trainer = Trainer(max_epochs=1, num_sanity_val_steps=0, logger=False, enable_checkpointing=False)
    trainer.fit(detector, DataLoader(Arrays(normal), 16), DataLoader(Arrays(held_out), 16))
    return detector.eval()


def score(detector: Neighbours, images: NDArray[np.uint8]) -> Iterator[tuple[float, bool, NDArray[np.float32]]]:
    """Score, decision and anomaly map (H, W) of each image."""
    for batch in DataLoader(Arrays(images), 16):
        with torch.no_grad():
            scores, maps = detector(batch["image"])
        for value, one in zip(scores, maps, strict=True):
            yield float(value), bool(value > detector.threshold), one.numpy()


def main(count: int = 48, size: int = 128, file: Path = Path("neighbours.pt")) -> None:
    """Fits on smooth random images, and scores one with a bright square."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 140, (count, size // 16, size // 16, 3), np.uint8)
    images: NDArray[np.uint8] = coarse.repeat(16, axis=1).repeat(16, axis=2)
    odd = images[-1:].copy()
    odd[:, size // 2 : size // 2 + 16, size // 2 : size // 2 + 16] = 255
    detector = fit(images[: -count // 4], images[-count // 4 : -1])
    torch.save(detector.state_dict(), file)
    for name, shown in {"as the others": images[-1:], "with a square": odd}.items():
        ((value, decision, anomaly_map),) = score(detector, shown)
        row, column = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
        print(f"{name}: score {value:.3f}, {'abnormal' if decision else 'normal'}, highest at ({row}, {column})")


if __name__ == "__main__":
    main()
