"""A worker process for a library whose worker is a call rather than a command: ``python -m benchmarks.worker PEER``."""

import sys

from .driver import load

if __name__ == "__main__":
    load(sys.argv[1]).work()
