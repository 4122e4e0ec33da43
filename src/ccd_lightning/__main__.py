"""`python -m ccd_lightning` is `ccd`."""

import sys

from ccd_lightning.cli import main

if __name__ == "__main__":
    sys.exit(main())
