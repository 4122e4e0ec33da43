"""Figures and pictures of anomaly maps."""
