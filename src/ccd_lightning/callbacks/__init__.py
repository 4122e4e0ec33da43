"""What runs beside training and testing: reports, predictions, TensorBoard and checkpoints."""
