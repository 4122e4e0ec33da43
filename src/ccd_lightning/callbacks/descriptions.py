"""Descriptions of scalars and images, which TensorBoard shows beside their names."""

from __future__ import annotations

import re
from typing import Any

from tensorboard.compat.proto.summary_pb2 import (  # type: ignore[import-untyped]
    DATA_CLASS_BLOB_SEQUENCE,
    DATA_CLASS_SCALAR,
)
from torch.utils.tensorboard import SummaryWriter

from ccd_lightning.metrics.definitions import MEASURES, Measure

STAGES = {"train": "On training images.", "val": "On held-out normal images.", "test": "On test images."}
SIZES = {
    "size_small": "the third with the smallest lesions",
    "size_medium": "the third with lesions of medium size",
    "size_large": "the third with the largest lesions",
}
LOSSES = {
    "loss": Measure("Total loss", "Weighted sum of the losses."),
    "centring": Measure("Centring loss", "Lower if the features of each augmentation are close to their centre."),
}
MEASURED = {name.removeprefix("pretext/"): measure for name, measure in MEASURES.items()} | LOSSES
SCALARS = {
    "l2_sp": "Half the squared distance of the encoder's weights from their initial values.",
    "probe_auroc": "Probability that the strongly augmented version of an image is farther from the normal features"
    " than the image itself; 0.5 is chance.",
    "probe_separation": "Difference of the log distances (nats) of strongly augmented versions and of the images.",
    "probe_pseudo_auroc": "Probability that an image with a pseudo-lesion is farther from the normal features than one"
    " without; 0.5 is chance.",
    "pseudo_auroc": "Probability that an image with a pseudo-lesion scores higher than one without; 0.5 is chance.",
    "pseudo_pixel_auroc": "Probability that a pixel of a pseudo-lesion has a higher value in the anomaly map than"
    " another pixel of the image; 0.5 is chance.",
    "threshold": "Score above which an image is called abnormal: a quantile of the scores of held-out normal images.",
    "reconstruction": "Reconstruction loss: difference between an image and its reconstruction.",
    "gaussian": "Gaussian loss: lower if the latents of normal images are close to their centre.",
    "interpolation": "Interpolation loss: lower if the critic takes interpolated images for real ones.",
    "critic": "Loss of the critic, which estimates how much an image was interpolated.",
    "learning_rate": "Learning rate of the optimiser.",
    "images_per_second": "Training images per second over all devices, with loading and augmentation.",
}
IMAGES = {
    "train/first_batch_views": "Weak views of images of the first batch, one column per strong augmentation.",
    "train/first_batch_position_pairs": "Pairs of patches of the first batch, one for each relative position.",
    "val/reconstructions": "Held-out images, their reconstructions, and their anomaly maps.",
    "test/histogram": "Histogram of the image scores, with the threshold.",
    "test/roc": "ROC curve of the image scores.",
    "test/precision_recall": "Precision-recall curve of the image scores.",
    "test/overlays": "Test images with anomaly maps: detected and missed lesions, false alarms and normal images.",
}
LINES = {
    "_contrastive$": "Contrastive loss of an encoder that maps all images to one point.",
    "_std$": "Threshold of the standard deviation, below which the encoder has collapsed.",
    "_(accuracy|auroc)$": "Level of chance.",
}
# Plugin and class of each sort of value. TensorBoard finds them itself, but not for values with a description.
PLUGINS = {"simple_value": ("scalars", DATA_CLASS_SCALAR), "image": ("images", DATA_CLASS_BLOB_SEQUENCE)}
OTHER = {"epoch": "Epoch at each step."}


def describe(tag: str) -> str:
    """Returns the description of a scalar or an image; empty for tags that are not of this package.

    Args:
        tag: Name in TensorBoard, such as "val/contrastive" or "test/image/auroc/polyp".
    """
    stage, _, name = tag.partition("/")
    if stage == "warning_line":
        return next((text for end, text in LINES.items() if re.search(end, f"_{name}")), "")
    if tag in IMAGES or tag in OTHER:
        return (IMAGES | OTHER)[tag]
    if stage not in STAGES:
        return ""
    metric, _, part = name.rpartition("/")
    if name in MEASURED:
        return f"{_sentences(MEASURED[name])} {STAGES[stage]}"
    if metric in MEASURED:
        which = SIZES.get(part, f"those of kind {part.removeprefix('kind_') if part[5:] in SIZES else part}")
        return f"{_sentences(MEASURED[metric])} {STAGES[stage]} Of the abnormal ones, only {which}."
    if metric in ("global_scale", "local_scale") and part in SCALARS:
        return f"{SCALARS[part]} At the {metric.removesuffix('_scale')} scale."
    return SCALARS.get(name.partition("/")[0], "")  # there may be one learning rate per optimiser


def _sentences(measure: Measure) -> str:
    optimistic = " Optimistic, because the threshold was chosen on the test images." if measure.optimistic else ""
    return f"{measure.title}. {measure.meaning}{optimistic}"


def add_descriptions(writer: SummaryWriter) -> None:
    """Adds descriptions to the scalars and images that are written from now on.

    `SummaryWriter` has no argument for them, but TensorBoard reads them from the first value of each tag.

    Args:
        writer: Writer of a run. Calling this again for the same writer has no effect.
    """
    file: Any = writer._get_file_writer()
    if hasattr(file, "described_tags"):
        return
    file.described_tags = set[str]()
    write = file.add_summary

    def add_summary(summary: Any, *args: Any, **kwargs: Any) -> None:
        for value in summary.value:
            if value.tag not in file.described_tags:
                file.described_tags.add(value.tag)
                plugin = PLUGINS.get(value.WhichOneof("value"))
                if plugin and (text := describe(value.tag)):
                    value.metadata.summary_description = text
                    value.metadata.plugin_data.plugin_name, value.metadata.data_class = plugin
        write(summary, *args, **kwargs)

    file.add_summary = add_summary
