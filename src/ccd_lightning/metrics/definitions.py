"""What each metric is called, and what it says, in words that need no glossary."""

from __future__ import annotations

from typing import NamedTuple


class Measure(NamedTuple):
    """A metric in plain words.

    Attributes:
        title: What it is called.
        meaning: What its value says.
        optimistic: Whether its threshold is chosen on the test images themselves.
    """

    title: str
    meaning: str
    optimistic: bool = False


MEASURES = {
    "image/auroc": Measure("AUROC", "How often an abnormal image scores above a normal one; 0.5 is chance."),
    "image/average_precision": Measure(
        "Average precision",
        "Share of abnormal images among the highest scores, averaged over cut-offs; chance is their share of all.",
    ),
    "image/sensitivity": Measure("Sensitivity", "Share of the abnormal images that are called abnormal."),
    "image/specificity": Measure("Specificity", "Share of the normal images that are called normal."),
    "image/accuracy": Measure(
        "Accuracy", "Share of all images that are called what they are; it depends on how many of them are abnormal."
    ),
    "image/f1": Measure("F1", "Harmonic mean of sensitivity and precision."),
    "image/sensitivity_at_specificity_90": Measure(
        "Sensitivity at 90% specificity",
        "Were the threshold such that at least 90% of the normal images were cleared.",
        True,
    ),
    "image/sensitivity_at_specificity_95": Measure(
        "Sensitivity at 95% specificity",
        "Were the threshold such that at least 95% of the normal images were cleared.",
        True,
    ),
    "image/specificity_at_sensitivity_90": Measure(
        "Specificity at 90% sensitivity",
        "Were the threshold such that at least 90% of the abnormal images were found.",
        True,
    ),
    "image/specificity_at_sensitivity_95": Measure(
        "Specificity at 95% sensitivity",
        "Were the threshold such that at least 95% of the abnormal images were found.",
        True,
    ),
    "pixel/auroc": Measure("AUROC", "How often a pixel of a lesion scores above a normal one; 0.5 is chance."),
    "pixel/average_precision": Measure(
        "Average precision",
        "Share of lesions among the highest pixels, averaged over cut-offs; chance is their share of all.",
    ),
    "pixel/aupro": Measure(
        "AUPRO",
        "Share of a lesion that is marked, averaged over lesions, small ones counting as much as large ones, and over"
        " thresholds that mark up to 30% of the normal pixels.",
    ),
    "pixel/dice": Measure("Dice", "Overlap of what is marked with the lesions."),
    "pixel/iou": Measure("Intersection over union", "The same overlap, as a share of what either covers."),
    "pixel/dice_best": Measure("Best Dice", "Dice at the threshold that makes it highest.", True),
    "pixel/iou_best": Measure("Best intersection over union", "The same at the threshold that makes it highest.", True),
    "pixel/mean_auroc": Measure("Mean AUROC per image", "AUROC of the pixels of each image alone."),
    "pixel/mean_dice": Measure("Mean Dice per image", "Dice of each image alone."),
    "pixel/mean_iou": Measure("Mean intersection over union per image", "Intersection over union of each image alone."),
    "pixel/mean_dice_best": Measure(
        "Best mean Dice per image", "At the threshold, the same for all images, that makes the mean highest.", True
    ),
    "pixel/mean_iou_best": Measure(
        "Best mean intersection over union per image",
        "At the threshold, the same for all images, that makes the mean highest.",
        True,
    ),
    "pretext/contrastive": Measure("Contrastive loss", "Lower where two views of an image are told from other images."),
    "pretext/augmentation": Measure("Augmentation loss", "Lower where the strong augmentation is recognised."),
    "pretext/position": Measure("Position loss", "Lower where a patch's place beside another is recognised."),
    "pretext/augmentation_accuracy": Measure("Augmentation accuracy", "How often the augmentation is recognised."),
    "pretext/position_accuracy": Measure("Position accuracy", "How often the place is recognised; 0.125 is chance."),
    "pretext/projection_std": Measure(
        "Standard deviation of projections", "Near 0 if all images have become one point."
    ),
    "pretext/feature_std": Measure("Standard deviation of features", "Near 0 if all images have become one point."),
    "pretext/alignment": Measure("Alignment", "0 if both views of an image are the same to the encoder."),
    "pretext/uniformity": Measure("Uniformity", "0 if all images have become one point, lower if they are spread."),
}

# Tables of metrics, by how the names of their metrics begin.
GROUPS = {
    "image/": "Whole images",
    "pixel/mean_": "Outlines, averaged over images",
    "pixel/": "Outlines (pixels)",
    "pretext/": "What pretraining has learned",
}
MEANS = "Means over the abnormal images whose masks show a lesion; each image counts the same."
