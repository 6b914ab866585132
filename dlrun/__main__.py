"""`python -m dlrun` is `dlrun`."""

from __future__ import annotations

import sys

from dlrun.cli import main

if __name__ == "__main__":
    sys.exit(main())
