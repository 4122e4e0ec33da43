"""Images, labels and masks: from folders to batches."""
