"""No connection is open while this process is forked.

SQLite keeps the locks of a file in memory, for all connections of a process. A child would inherit those of
its parent, though the operating system grants it none of them: it would wait for ever for a lock that no
thread of its own can free, or write without one. So a fork waits for the transactions under way, and closes
the connections first. Parent and child open their own again when they need them.
"""

import os
import threading
import weakref
from contextlib import suppress
from typing import Protocol


class ClosedAtForks(Protocol):
    """What may have a connection open."""

    def hold(self) -> None:
        """Wait for the transaction under way, close the connection, and let no other begin."""

    def let_go(self) -> None:
        """Go on."""


class Looks:
    """Short looks at a file, each with a connection of its own, one at a time."""

    def __init__(self) -> None:
        self.under_way = threading.RLock()

    def hold(self) -> None:
        self.under_way.acquire()

    def let_go(self) -> None:
        self.under_way.release()


_all: "weakref.WeakSet[ClosedAtForks]" = weakref.WeakSet()
_adding = threading.Lock()
_held: list[ClosedAtForks] = []

looks = Looks()
"""Those of this process."""


def close_at_forks(it: ClosedAtForks) -> None:
    """Close the connection of ``it`` whenever this process is forked from now on."""
    with _adding:
        _all.add(it)


def _before_fork() -> None:
    _adding.acquire()
    for each in list(_all):
        _held.append(each)  # first: a signal handler that raises must not leave one that nobody lets go
        each.hold()


def _after_fork() -> None:
    while _held:
        with suppress(RuntimeError):  # it isn't held: a signal handler raised before
            _held.pop().let_go()
    with suppress(RuntimeError):
        _adding.release()


close_at_forks(looks)
if hasattr(os, "register_at_fork"):  # else no process can be forked
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
