"""Words for messages."""

from collections.abc import Iterable
from importlib.metadata import version


def quantity(count: int, noun: str, plural: str | None = None) -> str:
    """Return ``count`` with its noun, such as ``1 job`` or ``2,000 jobs``; ``plural`` is irregular."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def closest(name: str, known: Iterable[str], *, alike: float = 0.6) -> str | None:
    """Return the name that was probably meant, or None if none is as much ``alike``, of 1."""
    from difflib import get_close_matches  # here, as only an error needs it

    return next(iter(get_close_matches(name, list(known), n=1, cutoff=alike)), None)


def lacks(what: str, library: str | None, extra: str) -> str:
    """Say which library ``what`` needs, with the command that installs the extra of it.

    The command names the version: without it, an installer may take an older release.
    """
    return f"{what} needs {library}: pip install 'mindtrace-jobs[{extra}]>={version('mindtrace-jobs')}'"


REGISTER_FIRST = "register its schema first"
"""What a program does about a queue that isn't declared. Commands put their own words there, as below."""
LIST_SCHEDULES = "orchestrator.schedules.list() has those that are"
EXPAND_HOME = "expand the home folder first, as in Path(…).expanduser()"
