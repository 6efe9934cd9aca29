"""What holds threads or waits for them, and starts anew in a forked child, which has none of them."""

import os
import weakref
from typing import Protocol


class StartsAnew(Protocol):
    """An object that a forked child may go on using."""

    def start_anew(self) -> None:
        """Forget what threads of the parent held."""


_all: "weakref.WeakSet[StartsAnew]" = weakref.WeakSet()


def start_anew_in_children(it: StartsAnew) -> None:
    """Have ``it`` start anew in each process that is forked from now on."""
    _all.add(it)


def _start_all_anew() -> None:
    for each in list(_all):
        each.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_all_anew)
