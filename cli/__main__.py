"""``python -m mindtrace.jobs.cli`` is the command ``mindtrace-jobs``."""

import sys

_AT_ONCE = 130
"""As :class:`Exit` has it, which takes long to import, like all that a command needs."""


def main() -> None:
    """Run the command line of this process."""
    try:
        from .main import run

        code = run()
    except KeyboardInterrupt:
        code = _AT_ONCE
    sys.exit(code)


if __name__ == "__main__":
    main()
