"""The date, as the ids, jobs and failures of this process have it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

_stand_ins: list[Callable[[], float]] = []
"""What tells the date in place of the machine, in seconds since 1970: clocks of tests (ADR 153). The last
one does."""


def now_s() -> float:
    """Return the seconds since 1970."""
    return _stand_ins[-1]() if _stand_ins else time.time()


def now_ms() -> int:
    """Return the whole milliseconds since 1970."""
    return int(_stand_ins[-1]() * 1000) if _stand_ins else time.time_ns() // 1_000_000


def utcnow() -> datetime:
    """Return the present moment, in UTC."""
    return datetime.fromtimestamp(_stand_ins[-1](), UTC) if _stand_ins else datetime.now(UTC)


@contextmanager
def told_by(clock: Callable[[], float]) -> Iterator[None]:
    """Have ``clock`` tell the date to all threads of this process, until the block ends.

    Of several clocks, that of the block that began last does.

    Args:
        clock: Returns seconds since 1970.
    """
    _stand_ins.append(clock)
    try:
        yield
    finally:
        _stand_ins.remove(clock)
