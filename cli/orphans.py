"""Processes that nobody waits for, if the worker is the first process of its container."""

import os
from collections.abc import Iterable
from contextlib import suppress


def reap_orphans(own: Iterable[int]) -> None:
    """Wait for the children that have ended and aren't ``own``, which others wait for.

    The kernel gives a process whose parent is gone to the first process of the container, else to none here.
    If that never waits for it, its number stays taken for good.

    Args:
        own: The ids of processes whose exit codes are still to be read.
    """
    if not hasattr(os, "waitid"):  # a Mac, which runs no containers
        return
    with suppress(ChildProcessError):
        _reap(own)


def _reap(own: Iterable[int]) -> None:
    while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
        if ended.si_pid in own:  # the rest is found once its supervisor has read its exit code
            return
        os.waitpid(ended.si_pid, 0)
