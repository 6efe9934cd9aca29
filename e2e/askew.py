"""Run a program on a machine whose clock is off: ``python askew.py SECONDS program.py arguments…``."""

import runpy
import sys
import time


def put_off(by_s: float) -> None:
    """Set the calendar of this process off; what counts the seconds since some start goes on as it was."""
    true_s, true_ns = time.time, time.time_ns
    time.time = lambda: true_s() + by_s
    time.time_ns = lambda: true_ns() + int(by_s * 1e9)


if __name__ == "__main__":
    put_off(float(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_path(sys.argv[0], run_name="__main__")
