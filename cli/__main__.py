"""``python -m mindtrace.jobs.cli`` is the command ``mindtrace-jobs``."""

from .main import main

if __name__ == "__main__":
    main()
