"""Starting a worker's processes anew when its code changes."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..application.process.signal_queue import SignalQueue
from ..application.worker.supervisor import CODE_CHANGED
from .errors import NotInstalled

_GROUP_MS = 100
"""For how long changes are collected that come together. Meanwhile jobs run by the old code."""


@contextmanager
def reloading(folder: Path, signal_queue: SignalQueue) -> Iterator[None]:
    """Post to ``signal_queue`` whenever a .py file below ``folder`` changes, from now on.

    Raises:
        NotInstalled: the extra ``reload`` is missing.
    """
    try:
        from watchfiles import PythonFilter, watch
    except ModuleNotFoundError as error:
        raise NotInstalled("--reload", error.name, "reload") from error
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of each file that a handler writes
    done = threading.Event()
    changes = watch(
        folder,
        watch_filter=None,  # what it filters out it doesn't yield, and the first must come soon
        debounce=_GROUP_MS,
        stop_event=done,
        rust_timeout=_GROUP_MS,
        yield_on_timeout=True,
        raise_interrupt=False,
    )
    next(changes)  # now the folder is watched, and no process has imported anything yet
    is_code = PythonFilter()

    def follow() -> None:
        for found in changes:
            if any(is_code(change, path) for change, path in found):
                signal_queue.post(CODE_CHANGED)

    thread = threading.Thread(target=follow, name="mindtrace-jobs-reload", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
