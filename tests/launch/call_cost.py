"""``python -m tests.launch.call_cost [CALLS]``: what a tool call costs beside the tool's own work, in milliseconds.

The tool adds two numbers, so all of the time is the call's: validation, a line of JSON each way, limits set and lifted.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from launch.tools import ToolSpec
from launch.tools_pool import Pool
from tests.launch.toy_tools import mix


def measured(count: int, data: Path) -> dict[str, float]:
    """Wall milliseconds of `count` calls by one worker that is already up: median and 99th percentile."""
    seconds = []
    with Pool({"mix": ToolSpec.of(mix)}, data, workers=1) as pool:
        pool.call("mix", {"numbers": [1, 2], "times": 3})
        for _ in range(count):
            start = time.perf_counter()
            pool.call("mix", {"numbers": [1, 2], "times": 3})
            seconds.append(time.perf_counter() - start)
    seconds.sort()
    at = {"median_ms": count // 2, "p99_ms": count * 99 // 100}
    return {"calls": count, **{name: round(1000 * seconds[place], 3) for name, place in at.items()}}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000, Path(folder))))
