"""Starting a thread in the main thread, where a signal handler may raise at any moment."""

import _thread
import threading
from contextlib import suppress


def start_thread(thread: threading.Thread) -> None:
    """Start ``thread``; a signal handler that raises meanwhile leaves nothing half begun.

    If it is interrupted, ``Thread.start`` takes the thread that was started off its books, and that thread
    dies of it. Signal handlers run in the main thread only, so there another thread starts it.

    Don't call this in a signal handler: it waits for ``Thread.start``, whose lock interrupted code may have.

    Raises:
        RuntimeError: no thread can be started.
    """
    if threading.current_thread() is not threading.main_thread():
        thread.start()
        return
    tried = threading.Lock()
    tried.acquire()

    def start() -> None:
        try:
            with suppress(RuntimeError):
                thread.start()
        finally:
            tried.release()

    _thread.start_new_thread(start, ())
    tried.acquire()
    if thread.ident is None:
        raise RuntimeError("can't start new thread")
