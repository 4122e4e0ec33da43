"""What TensorBoard shows as pictures: views, position pairs and features of pretraining, reconstructions of IGD."""

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

# TensorBoard shows pictures about 350 pixels wide, half of what these have, and there their text must be readable.
DPI, TEXT = 160, 9


class PretextPictures(Callback):
    """Shows the views and the position pairs of the first batch, and at the end the held-out images' features.

    The features are on TensorBoard's tab Projector, to be coloured by distribution: those of one should lie together.

    Args:
        images: How many images to show the views of.
        projected: About how many held-out images to show the features of, each under every distribution.
    """

    def __init__(self, images: int = 4, projected: int = 256) -> None:
        self.images = images
        self.projected = projected

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Draws the pictures once."""
        if trainer.global_step or not isinstance(pl_module, CCD) or (writer := tensorboard(trainer)) is None:
            return
        shown = slice(self.images)
        views = views_figure(batch["views"][shown], batch["augmentation"][shown], family_name(trainer))
        writer.add_figure("first_batch/views", views, 0)
        if "patches" in batch:
            writer.add_figure("first_batch/position_pairs", pairs_figure(batch["patches"], batch["position"]), 0)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the features, by the statistics of whole images that the last validation left in the encoder."""
        data, writer = getattr(trainer, "datamodule", None), tensorboard(trainer)
        if not isinstance(pl_module, EncoderPretraining) or not isinstance(data, AnomalyDataModule) or writer is None:
            return
        if found := held_out_features(pl_module, data, self.projected, family_name(trainer)):
            features, thumbnails, labels = found
            header = ["distribution", "image"]
            writer.add_embedding(features, labels, thumbnails, trainer.global_step, "features", header)


def family_name(trainer: Trainer) -> str:
    """What the strong augmentations are called, such as "Permutation"."""
    family = getattr(getattr(getattr(trainer, "datamodule", None), "views", None), "family", None)
    return "distribution" if family is None else type(family).__name__


def views_figure(views: Tensor, augmentation: Tensor, family: str) -> Figure:
    """Weak views side by side: a row an image, a column a distribution.

    Args:
        views: (B, 2, K, 3, S, S) in [0, 1].
        augmentation: (B, K), which distribution each is of.
        family: What the strong augmentations are called.
    """
    gap = max(1, views.shape[-1] // 16)
    pairs = functional.pad(views.float().cpu(), (0, gap), value=1.0).permute(0, 2, 4, 1, 5, 3).flatten(3, 4)
    pairs = pairs[:, :, :, :-gap]  # (B, K, S, 2S + gap, 3): white between the two views
    if augmentation.shape[1] == 1:  # one distribution was drawn of each image: images lie side by side
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
    """A pair of patches of each class, where the batch has one: the second lies where it was found around the first.

    Args:
        patches: (B, 2, N, 3, P, P) in [0, 1].
        position: (B, N) in 0..7.
    """
    pairs, classes = patches.transpose(1, 2).flatten(0, 1).float().cpu(), position.flatten().tolist()
    figure = Figure(figsize=(4.2, 2.8), dpi=DPI, layout="constrained")
    figure.suptitle("Where does the second patch lie, seen from\nthe first, which is in the middle?", fontsize=TEXT)
    for cell, axes in enumerate(figure.subplots(2, 4).flat):
        axes.set_title(f"{cell}: {_direction(cell)}", fontsize=TEXT)
        axes.set_visible(cell in classes)
        if cell in classes:
            _show(axes, pair_board(pairs[classes.index(cell)], cell))
    return figure


def pair_board(pair: Tensor, cell: int) -> Tensor:
    """A picture (3P, 3P, 3) of three by three cells: the first of a pair (2, 3, P, P) in the middle, the second around.

    Args:
        pair: In [0, 1].
        cell: The class of the second's position, in 0..7.
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
    """Features of held-out images, or of their tiles, under each distribution, in eval mode.

    Args:
        module: Its encoder's running statistics are used, and its mode is left as it was.
        data: Gives the images.
        images: The most images, or tiles, to take.
        family: What the strong augmentations are called.
        thumbnail: Side of the thumbnails in pixels.

    Returns:
        Features (N, 512), thumbnails (N, 3, thumbnail, thumbnail) in [0, 1], and the name of each one's distribution
        and image; None where the views have no family of strong augmentations.
    """
    features, thumbnails, labels = [], [], list[list[str]]()
    seen: Counter[int] = Counter()  # of each distribution; they come in the order of the images
    tiles = math.prod(side // data.tile for side in data.preprocessing.shape) if data.tile else 1
    mode = module.encoder.training
    module.encoder.eval()
    for batch, index in data.held_out_distributions(module.device):
        features.append(module(batch).double().round(decimals=4).cpu())  # are written as text: a third of its size
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
    """Shows held-out images beside what IGD makes of them, and their anomaly maps, after every validation.

    Args:
        images: How many.
    """

    def __init__(self, images: int = 4) -> None:
        self.images = images

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the picture."""
        data, writer = getattr(trainer, "datamodule", None), tensorboard(trainer)
        if not isinstance(pl_module, IGD) or not isinstance(data, AnomalyDataModule) or writer is None:
            return
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            images, content = (part[: self.images] for part in next(data.normal_images(pl_module.device)[1]))
            with torch.no_grad():
                _, maps = pl_module(images, content)
                shown = {"held-out image": images, **reconstructions(pl_module, images)}
            writer.add_figure("reconstructions", reconstruction_figure(shown, maps), trainer.global_step)


def reconstructions(module: IGD, images: Tensor) -> dict[str, Tensor]:
    """What each scale that is used makes of images (B, 3, H, W) in [0, 1]; windows are averaged where they overlap."""
    made = {}
    if module.global_scale.weight:
        made["global"] = module.whole.reconstruct(module.encoder, images)
    if module.local_scale.weight:
        made["local"] = module.local.reconstruct(module.local_encoder, images)
    return made


def reconstruction_figure(shown: dict[str, Tensor], maps: Tensor) -> Figure:
    """A row for the images and for each scale, a column an image, and below them the anomaly maps.

    Args:
        shown: By title, (B, 3, H, W) in [0, 1].
        maps: (B, H, W), drawn on one scale, whose ends are written beside them.
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
