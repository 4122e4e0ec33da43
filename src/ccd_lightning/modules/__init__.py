"""LightningModules: pretraining and the detectors."""
