"""A worker process where a library has no command for it: ``python -m benchmarks.worker_process PEER``."""

import sys

from .publisher_process import load

if __name__ == "__main__":
    load(sys.argv[1]).work()
