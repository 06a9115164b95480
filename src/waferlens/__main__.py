"""`python -m waferlens`: the same door as the `waferlens` command."""

from __future__ import annotations

import sys

from waferlens.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
