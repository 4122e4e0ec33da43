"""Synthetic data sets: procedural images with exact masks, so that everything runs without a download."""

from ccd_lightning.data.synthetic.baselines import baselines
from ccd_lightning.data.synthetic.folder import SETS, VERSION, render, synthesize

__all__ = ["SETS", "VERSION", "baselines", "render", "synthesize"]
