"""The embedded data sets: procedural images with exact masks, so that everything runs without a download."""

from ccd_lightning.data.synthetic.folder import baselines, synthesize

__all__ = ["baselines", "synthesize"]
