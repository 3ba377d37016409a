"""A module that takes its time, as torch does."""

import time

SECONDS = 1.0
time.sleep(SECONDS)
