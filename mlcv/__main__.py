"""`python -m mlcv`."""

import sys

from mlcv.cli import main

if __name__ == "__main__":
    sys.exit(main())
