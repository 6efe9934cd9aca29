"""Waiting for a lock of the file that another process or thread holds."""

import random
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from .errors import is_busy

AnswerT = TypeVar("AnswerT")

_PAUSE_S = (0.0002, 0.005)
"""The shortest and the longest pause between two tries."""


def call_once_unlocked(call: Callable[[], AnswerT], give_up: float) -> AnswerT:
    """Repeat a call for as long as others hold a lock that it needs.

    Args:
        call: What to repeat.
        give_up: Until when, of ``monotonic``.

    Raises:
        sqlite3.Error: what the call raised; that the file is busy only if that lasted until ``give_up``.
    """
    shortest_s, longest_s = _PAUSE_S
    pause_s = shortest_s
    while True:
        try:
            return call()
        except sqlite3.Error as error:
            if not is_busy(error) or time.monotonic() >= give_up:
                raise
        pause_s = min(longest_s, 2 * pause_s)
        time.sleep(random.uniform(shortest_s, pause_s))  # noqa: S311
