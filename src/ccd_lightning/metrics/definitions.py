"""Titles and plain-language explanations of all metrics."""

from __future__ import annotations

from typing import NamedTuple


class Measure(NamedTuple):
    """A metric in plain language.

    Attributes:
        title: Name of the metric.
        meaning: Explanation of its value.
        optimistic: Whether its threshold is chosen on the test images.
    """

    title: str
    meaning: str
    optimistic: bool = False


MEASURES = {
    "image/auroc": Measure(
        "AUROC", "Probability that an abnormal image scores higher than a normal one; 0.5 is chance."
    ),
    "image/average_precision": Measure(
        "Average precision",
        "Precision averaged over recall; chance is the share of abnormal images.",
    ),
    "image/sensitivity": Measure("Sensitivity", "Share of the abnormal images that are called abnormal."),
    "image/specificity": Measure("Specificity", "Share of the normal images that are called normal."),
    "image/accuracy": Measure(
        "Accuracy", "Share of all images that are classified correctly; it depends on the share of abnormal images."
    ),
    "image/f1": Measure("F1", "Harmonic mean of sensitivity and precision."),
    "image/sensitivity_at_specificity_90": Measure(
        "Sensitivity at 90% specificity",
        "If the threshold were set so that at least 90% of the normal images are called normal.",
        True,
    ),
    "image/sensitivity_at_specificity_95": Measure(
        "Sensitivity at 95% specificity",
        "If the threshold were set so that at least 95% of the normal images are called normal.",
        True,
    ),
    "image/specificity_at_sensitivity_90": Measure(
        "Specificity at 90% sensitivity",
        "If the threshold were set so that at least 90% of the abnormal images are detected.",
        True,
    ),
    "image/specificity_at_sensitivity_95": Measure(
        "Specificity at 95% sensitivity",
        "If the threshold were set so that at least 95% of the abnormal images are detected.",
        True,
    ),
    "pixel/auroc": Measure(
        "AUROC", "Probability that a pixel of a lesion has a higher value than a normal one; 0.5 is chance."
    ),
    "pixel/average_precision": Measure(
        "Average precision",
        "Precision of the pixels averaged over recall; chance is the share of abnormal pixels.",
    ),
    "pixel/aupro": Measure(
        "AUPRO",
        "Marked share of each lesion, averaged over lesions (small ones count as much as large ones) and over"
        " thresholds that mark up to 30% of the normal pixels.",
    ),
    "pixel/dice": Measure("Dice", "Overlap of the marked pixels with the lesions."),
    "pixel/iou": Measure("Intersection over union", "Overlap as a share of all pixels that are marked or in a lesion."),
    "pixel/dice_best": Measure("Best Dice", "Dice at the threshold with the highest value.", True),
    "pixel/iou_best": Measure(
        "Best intersection over union", "Intersection over union at the threshold with the highest value.", True
    ),
    "pixel/mean_auroc": Measure("Mean AUROC per image", "Pixel AUROC within each image."),
    "pixel/mean_dice": Measure("Mean Dice per image", "Dice within each image."),
    "pixel/mean_iou": Measure("Mean intersection over union per image", "Intersection over union within each image."),
    "pixel/mean_dice_best": Measure("Best mean Dice per image", "At the common threshold with the highest mean.", True),
    "pixel/mean_iou_best": Measure(
        "Best mean intersection over union per image",
        "At the common threshold with the highest mean.",
        True,
    ),
    "pretext/contrastive": Measure(
        "Contrastive loss", "Lower if two views of an image are distinguished from other images."
    ),
    "pretext/augmentation": Measure("Augmentation loss", "Lower if the strong augmentation is recognised."),
    "pretext/position": Measure("Position loss", "Lower if the relative position of two patches is recognised."),
    "pretext/augmentation_accuracy": Measure("Augmentation accuracy", "Share of augmentations that are recognised."),
    "pretext/position_accuracy": Measure(
        "Position accuracy", "Share of relative positions that are recognised; 0.125 is chance."
    ),
    "pretext/projection_std": Measure(
        "Standard deviation of projections", "Near 0 if all images collapse to one point."
    ),
    "pretext/feature_std": Measure("Standard deviation of features", "Near 0 if all images collapse to one point."),
    "pretext/alignment": Measure("Alignment", "0 if both views of an image have the same projection."),
    "pretext/uniformity": Measure("Uniformity", "0 if all images collapse to one point, lower if they are spread out."),
}

# Titles of the tables of metrics, by the prefix of the metrics' names.
GROUPS = {
    "image/": "Whole images",
    "pixel/mean_": "Localisation, averaged over images",
    "pixel/": "Localisation (pixels)",
    "pretext/": "Pretraining tasks",
}
MEANS = "Means over the abnormal images with a lesion in their mask; each image counts the same."
