"""Unsupervised anomaly detection in medical images: CCD pretraining and one-class detectors on Lightning."""

__version__ = "0.1.0"
