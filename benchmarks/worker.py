"""A worker process where a library has no command for it: ``python -m benchmarks.worker PEER``."""

import sys

from .driver import load

if __name__ == "__main__":
    load(sys.argv[1]).work()
