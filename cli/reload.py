"""Starting a worker's processes anew when its code changes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..application.signals.signal_queue import SignalQueue
from ..application.worker.supervisor import RELOAD
from .errors import NotInstalled


@contextmanager
def reloading(folder: Path, signal_queue: SignalQueue) -> Iterator[None]:
    """Post to ``signals`` whenever a .py file below ``folder`` changes.

    Raises:
        NotInstalled: the extra ``reload`` is missing.
    """
    try:
        from watchfiles import PythonFilter, watch
    except ModuleNotFoundError as error:
        raise NotInstalled("--reload", error.name, "reload") from error
    done = threading.Event()

    def follow() -> None:
        for _ in watch(folder, watch_filter=PythonFilter(), stop_event=done, raise_interrupt=False):
            signal_queue.post(RELOAD)

    thread = threading.Thread(target=follow, name="mindtrace-jobs-reload", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
