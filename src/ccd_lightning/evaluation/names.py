"""Which metrics a terminal shows; all of them are in metrics.json."""

MAIN = (
    "image/auroc",
    "image/average_precision",
    "image/sensitivity",
    "image/specificity",
    "image/sensitivity_at_specificity_95",
    "pixel/auroc",
    "pixel/average_precision",
    "pixel/aupro",
    "pixel/dice",
)
