"""The files that a test writes, and reading them again."""
