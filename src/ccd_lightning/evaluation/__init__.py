"""Metrics, figures, dashboards and reports."""
