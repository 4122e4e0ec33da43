"""Runs the command line with `python -m ccd_lightning`."""

import sys

from ccd_lightning.cli import main

if __name__ == "__main__":
    sys.exit(main())
