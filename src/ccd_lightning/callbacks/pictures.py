"""TensorBoard images: views, position pairs and features of pretraining, and reconstructions of IGD."""

from __future__ import annotations

import math
import os
from collections import Counter
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from ccd_lightning.callbacks.dashboard import tensorboard
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.modules.ccd import CCD
from ccd_lightning.modules.igd import IGD
from ccd_lightning.modules.pretraining import EncoderPretraining
from ccd_lightning.transforms.patches import CELLS
from ccd_lightning.visualization.overlays import colour_map

# TensorBoard shows images about 350 pixels wide, half the width of these, and text must still be readable then.
DPI, TEXT = 160, 9


class PretextPictures(Callback):
    """Shows the views and position pairs of the first batch, and at the end the features of held-out images.

    The features are on TensorBoard's tab Projector. Colour them by distribution: those of one should be close together.

    Args:
        images: Number of images whose views are shown.
        projected: Approximate number of held-out images whose features are shown, each under every distribution.
    """

    def __init__(self, images: int = 4, projected: int = 256) -> None:
        self.images = images
        self.projected = projected

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Draws the images once."""
        if trainer.global_step or not isinstance(pl_module, CCD) or (writer := tensorboard(trainer)) is None:
            return
        shown = slice(self.images)
        views = views_figure(batch["views"][shown], batch["augmentation"][shown], family_name(trainer))
        writer.add_figure("train/first_batch_views", views, 0)
        if "patches" in batch:
            pairs = pairs_figure(batch["patches"], batch["position"])
            writer.add_figure("train/first_batch_position_pairs", pairs, 0)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the features, with the batch norm statistics of whole images from the last validation."""
        data, writer = getattr(trainer, "datamodule", None), tensorboard(trainer)
        if not isinstance(pl_module, EncoderPretraining) or not isinstance(data, AnomalyDataModule) or writer is None:
            return
        if found := held_out_features(pl_module, data, self.projected, family_name(trainer)):
            features, thumbnails, labels = found
            header = ["distribution", "image"]
            writer.add_embedding(features, labels, thumbnails, trainer.global_step, "features", header)


def family_name(trainer: Trainer) -> str:
    """Returns the name of the family of strong augmentations, such as "Permutation"."""
    family = getattr(getattr(getattr(trainer, "datamodule", None), "views", None), "family", None)
    return "distribution" if family is None else type(family).__name__


def views_figure(views: Tensor, augmentation: Tensor, family: str) -> Figure:
    """Draws weak views side by side, with one row per image and one column per distribution.

    Args:
        views: Views in [0, 1], (B, 2, K, 3, S, S).
        augmentation: Distribution of each view, (B, K).
        family: Name of the family of strong augmentations.
    """
    gap = max(1, views.shape[-1] // 16)
    pairs = functional.pad(views.float().cpu(), (0, gap), value=1.0).permute(0, 2, 4, 1, 5, 3).flatten(3, 4)
    pairs = pairs[:, :, :, :-gap]  # (B, K, S, 2S + gap, 3): a white gap between both views
    if augmentation.shape[1] == 1:  # one distribution per image: put images side by side
        pairs, augmentation = pairs.transpose(0, 1), augmentation.T
    rows, columns = augmentation.shape
    figure = Figure(figsize=(columns + 0.2, 0.55 * rows + 0.6), dpi=DPI, layout="constrained")
    figure.suptitle(f"Two weak views of each image under {family}", fontsize=TEXT)
    for row, line in enumerate(figure.subplots(rows, columns, squeeze=False)):
        for axes, picture in zip(line, pairs[row], strict=True):
            _show(axes, picture)
        line[0].set_ylabel(f"{row}" if rows > 1 else "", fontsize=TEXT)
    for axes, index in zip(figure.axes, augmentation[0].tolist(), strict=False):
        axes.set_title(f"{index}", fontsize=TEXT)
    return figure


def pairs_figure(patches: Tensor, position: Tensor) -> Figure:
    """Draws one pair of patches of each class in the batch, with the second patch at its position around the first.

    Args:
        patches: Patches in [0, 1], (B, 2, N, 3, P, P).
        position: Classes of the positions, (B, N) in 0..7.
    """
    pairs, classes = patches.transpose(1, 2).flatten(0, 1).float().cpu(), position.flatten().tolist()
    figure = Figure(figsize=(4.2, 2.8), dpi=DPI, layout="constrained")
    figure.suptitle("Pairs of patches: the first in the centre,\nthe second at its relative position", fontsize=TEXT)
    for cell, axes in enumerate(figure.subplots(2, 4).flat):
        axes.set_title(f"{cell}: {_direction(cell)}", fontsize=TEXT)
        axes.set_visible(cell in classes)
        if cell in classes:
            _show(axes, pair_board(pairs[classes.index(cell)], cell))
    return figure


def pair_board(pair: Tensor, cell: int) -> Tensor:
    """Returns an image (3P, 3P, 3) of three by three cells with the first patch in the centre and the second around it.

    Args:
        pair: Patches in [0, 1], (2, 3, P, P).
        cell: Class of the second patch's position, in 0..7.
    """
    size = pair.shape[-1]
    board = torch.full((3, 3 * size, 3 * size), 0.9)
    for (row, column), patch in zip(((0, 0), CELLS[cell]), pair, strict=True):
        top, left = (1 + row) * size, (1 + column) * size
        board[:, top : top + size, left : left + size] = patch
    return board.permute(1, 2, 0)


def _direction(cell: int) -> str:
    row, column = CELLS[cell]
    return " ".join(filter(None, (("", "below", "above")[row], ("", "right", "left")[column])))


def _show(axes: Axes, picture: Tensor) -> None:
    axes.imshow(picture.clamp(0, 1).numpy())
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


@torch.no_grad()
def held_out_features(
    module: EncoderPretraining, data: AnomalyDataModule, images: int, family: str, thumbnail: int = 32
) -> tuple[Tensor, Tensor, list[list[str]]] | None:
    """Computes features of held-out images, or of their tiles, under each distribution, in eval mode.

    Args:
        module: Module with the encoder; its mode is restored afterwards.
        data: Data module with the images.
        images: Maximum number of images or tiles.
        family: Name of the family of strong augmentations.
        thumbnail: Side of the thumbnails in pixels.

    Returns:
        Features (N, 512), thumbnails (N, 3, thumbnail, thumbnail) in [0, 1], and the names of distribution and image of
        each; None if the views have no family of strong augmentations.
    """
    features, thumbnails, labels = [], [], list[list[str]]()
    seen: Counter[int] = Counter()  # images per distribution, which come in order
    tiles = math.prod(side // data.tile for side in data.preprocessing.shape) if data.tile else 1
    mode = module.encoder.training
    module.encoder.eval()
    for batch, index in data.held_out_distributions(module.device):
        features.append(module(batch).double().round(decimals=4).cpu())  # rounding reduces the text file to a third
        thumbnails.append(functional.interpolate(batch, size=(thumbnail, thumbnail), mode="area").cpu())
        for distribution in index.tolist():
            path = data.datasets["val"].rows[seen[distribution] // tiles].path
            labels.append([f"{family} {distribution}", os.path.relpath(path, data.root)])
            seen[distribution] += 1
        if max(seen.values()) >= images:
            break
    module.encoder.train(mode)
    if not labels:
        return None
    kept = images * len(seen)
    return torch.cat(features)[:kept], torch.cat(thumbnails)[:kept], labels[:kept]


class ReconstructionPictures(Callback):
    """Shows held-out images with IGD's reconstructions and anomaly maps after every validation.

    Args:
        images: Number of images.
    """

    def __init__(self, images: int = 4) -> None:
        self.images = images

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the figure."""
        data, writer = getattr(trainer, "datamodule", None), tensorboard(trainer)
        if not isinstance(pl_module, IGD) or not isinstance(data, AnomalyDataModule) or writer is None:
            return
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            images, content = (part[: self.images] for part in next(data.normal_images(pl_module.device)[1]))
            with torch.no_grad():
                _, maps = pl_module(images, content)
                shown = {"held-out image": images, **reconstructions(pl_module, images)}
            writer.add_figure("val/reconstructions", reconstruction_figure(shown, maps), trainer.global_step)


def reconstructions(module: IGD, images: Tensor) -> dict[str, Tensor]:
    """Returns the reconstructions of images (B, 3, H, W) in [0, 1] by each used scale; windows are averaged."""
    made = {}
    if module.global_scale.weight:
        made["global"] = module.whole.reconstruct(module.encoder, images)
    if module.local_scale.weight:
        made["local"] = module.local.reconstruct(module.local_encoder, images)
    return made


def reconstruction_figure(shown: dict[str, Tensor], maps: Tensor) -> Figure:
    """Draws one column per image, with rows for the images, the reconstructions of each scale, and the anomaly maps.

    Args:
        shown: Images and reconstructions in [0, 1] by title, (B, 3, H, W) each.
        maps: Anomaly maps (B, H, W), drawn with a common colour scale, whose limits are written next to them.
    """
    count, rows = len(maps), len(shown) + 1
    figure = Figure(figsize=(count + 0.3, rows + 0.1), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, count, squeeze=False)
    for line, (title, pictures) in zip(axes, shown.items(), strict=False):
        line[0].set_ylabel(title, fontsize=TEXT)
        for axis, picture in zip(line, pictures.float().cpu(), strict=True):
            _show(axis, picture.permute(1, 2, 0))
    low, high = float(maps.min()), float(maps.max())
    axes[-1][0].set_ylabel(f"map\n{low:.2f} to {high:.2f}", fontsize=TEXT)
    for axis, one in zip(axes[-1], maps.float().cpu(), strict=True):
        axis.imshow(colour_map(one.numpy(), (low, high)))
        axis.set(xticks=[], yticks=[])
    return figure
