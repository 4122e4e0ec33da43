"""Writing and reading of the files that a test produces."""
