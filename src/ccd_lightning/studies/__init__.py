"""Studies: encoders x detectors x data sets x seeds. Each cell is an ordinary run; one table collects all."""
