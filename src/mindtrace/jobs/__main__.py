"""``python -m mindtrace.jobs`` is the command ``mindtrace-jobs``."""

from mindtrace.jobs.cli.__main__ import main

if __name__ == "__main__":
    main()
