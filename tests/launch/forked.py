"""Work in a forked child that may die of a signal: how tests kill a fit without importing the trainer for each."""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Callable


def before_forks() -> None:
    """Call it when everything is imported: children need not look through that for garbage at the start of each fit."""
    gc.collect()
    gc.freeze()


def in_child(work: Callable[[], object]) -> int:
    """Do `work` in a fork and return how it ended: 0, 1 for an exception (shown), or minus the signal."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
