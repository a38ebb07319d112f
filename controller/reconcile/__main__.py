"""`python -m controller.reconcile`: the operator process. Its settings are the variables `MAINSPRING_*`."""

from __future__ import annotations

import sys

from controller.reconcile.process import main

if __name__ == "__main__":
    sys.exit(main())
