"""`arbiter …` that is killed with so many judge's replies stored: python -m tests.launch.killed_eval COUNT WORDS…

The signal is SIGKILL, as a user or the machine would send it; sent from within, it always comes at the same place.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from launch import cli, judge


def main(count: int, words: list[str]) -> int:
    put, stored = judge.Cache.put, []

    def counted(cache: judge.Cache, key: str, reply: dict[str, Any]) -> None:
        put(cache, key, reply)
        stored.append(key)
        if len(stored) >= count:
            os.kill(os.getpid(), signal.SIGKILL)

    judge.Cache.put = counted  # type: ignore[method-assign]
    return cli.main(words)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
