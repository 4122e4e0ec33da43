"""Metrics, thresholds and confidence intervals of scores and anomaly maps."""
