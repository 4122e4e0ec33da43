"""Figures and anomaly maps as pictures."""
