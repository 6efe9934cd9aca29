"""Wait until a condition holds, for as long as the busiest machine needs."""

import time
from collections.abc import Callable

LIMIT_S = 240.0
"""How long a test waits for what must happen; only a failing test waits that long."""


def eventually(condition: Callable[[], object], what: str, within_s: float = LIMIT_S) -> None:
    """Wait until ``condition`` holds, or fail with ``what`` should have come true."""
    give_up = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up, f"not within {within_s:g} s: {what}"
        time.sleep(0.01)
