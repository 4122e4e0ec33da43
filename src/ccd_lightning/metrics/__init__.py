"""What scores and anomaly maps say about a detector: metrics, thresholds and intervals."""
