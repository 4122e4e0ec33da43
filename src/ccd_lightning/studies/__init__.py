"""Studies: encoders x detectors x data sets x seeds, each cell a normal run, and one table of them all."""
