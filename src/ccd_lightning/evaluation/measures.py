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
    "image/auroc": Measure("Area under the ROC curve", "How often an abnormal image scores above a normal one."),
    "image/average_precision": Measure(
        "Average precision", "Share of abnormal images among those that score highest; depends on how many there are."
    ),
    "image/sensitivity": Measure("Sensitivity", "Share of the abnormal images that are called abnormal."),
    "image/specificity": Measure("Specificity", "Share of the normal images that are called normal."),
    "image/f1": Measure("F1", "Harmonic mean of sensitivity and precision."),
    "image/sensitivity_at_specificity_90": Measure(
        "Sensitivity at 90% specificity", "Were the threshold such that 90% of the normal images are cleared.", True
    ),
    "image/sensitivity_at_specificity_95": Measure(
        "Sensitivity at 95% specificity", "Were the threshold such that 95% of the normal images are cleared.", True
    ),
    "image/specificity_at_sensitivity_90": Measure(
        "Specificity at 90% sensitivity", "Were the threshold such that 90% of the abnormal images are found.", True
    ),
    "image/specificity_at_sensitivity_95": Measure(
        "Specificity at 95% sensitivity", "Were the threshold such that 95% of the abnormal images are found.", True
    ),
    "pixel/auroc": Measure("Area under the ROC curve", "How often a lesion's pixel scores above a normal one."),
    "pixel/average_precision": Measure("Average precision", "Share of lesions among the pixels that score highest."),
    "pixel/aupro": Measure(
        "AUPRO",
        "Mean share of each lesion that is marked, at up to 30% of the normal pixels marked; large and small alike.",
    ),
    "pixel/dice": Measure("Dice", "Overlap of what is marked with the lesions."),
    "pixel/iou": Measure("Intersection over union", "The same overlap, as a share of what either covers."),
    "pixel/dice_best": Measure("Best Dice", "Dice at the threshold that makes it highest.", True),
    "pixel/iou_best": Measure("Best intersection over union", "The same at the threshold that makes it highest.", True),
    "pretext/augmentation_accuracy": Measure(
        "Augmentation accuracy", "How often the strong augmentation is recognised."
    ),
    "pretext/position_accuracy": Measure(
        "Position accuracy", "How often a patch's place beside another is recognised."
    ),
}
