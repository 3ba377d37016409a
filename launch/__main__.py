"""``python -m launch run CONFIG``, also under ``accelerate launch``: the same job as ``arbiter run CONFIG``."""

from __future__ import annotations

import sys

from launch.cli import main

if __name__ == "__main__":
    sys.exit(main())
