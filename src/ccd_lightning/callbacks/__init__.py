"""Callbacks: reports, predictions, TensorBoard, checkpoints and monitoring."""
