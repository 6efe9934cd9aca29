"""Run a program with a shifted wall clock: ``python shifted_clock.py SECONDS program.py arguments…``."""

import runpy
import sys
import time


def shift_clock(by_s: float) -> None:
    """Shift the wall clock of this process; the monotonic clock stays as it is."""
    true_s, true_ns = time.time, time.time_ns
    time.time = lambda: true_s() + by_s
    time.time_ns = lambda: true_ns() + int(by_s * 1e9)


if __name__ == "__main__":
    shift_clock(float(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_path(sys.argv[0], run_name="__main__")
