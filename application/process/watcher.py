"""A thread that learns of a signal at once, also while the main thread waits for a lock."""

import atexit
import socket
import threading
from collections.abc import Callable

from .forks import start_anew_in_children
from .readable import is_readable
from .thread_start import start_thread

_IDLE_S = 0.5
"""How long the thread stays without work: a call that follows soon needn't start another."""
_WAKE = b"\0"
"""No signal: the thread is to look how long it may wait."""


class SignalWatcher:
    """Calls a function with the numbers of the signals that have come, on a thread of its own.

    Python runs a handler in the main thread, once that executes code: where the signal comes just before
    the thread begins to wait for a lock, that is after the wait. But the signal's number is written to a
    descriptor at once, and this thread reads it there. Calls that follow one another share it, since to start
    it takes longer than most jobs; it ends soon after the last (CON-2).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tell: Callable[[bytes], None] | None = None
        self._thread: threading.Thread | None = None
        self._receiver: socket.socket
        self._sender: socket.socket

    def begin(self, tell: Callable[[bytes], None]) -> int:
        """Call ``tell`` until :meth:`end`; it must wait for nothing.

        Returns:
            The descriptor to which Python is to write the numbers.
        """
        with self._lock:
            if self._thread is None:
                self._start()
            self._tell = tell
            return self._sender.fileno()

    def end(self) -> None:
        """Call ``tell`` for what has come so far, and no more."""
        with self._lock:
            if self._thread is not None:  # else this process was forked meanwhile, and the parent is told
                self._read()
                self._tell = None
                self._sender.send(_WAKE)

    def start_anew(self) -> None:
        """Forget the thread and the descriptors, which are those of the parent of this process."""
        self._lock = threading.Lock()
        if self._thread is not None:
            self._forget()
        self._tell = None

    def close(self) -> None:
        """End the thread at once. :meth:`begin` starts another."""
        with self._lock:
            thread = self._thread
            if thread is not None:
                self._sender.close()
        if thread is not None:
            thread.join()

    def _start(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        for each in (self._receiver, self._sender):
            each.setblocking(False)  # as Python demands of what it writes to
        thread = threading.Thread(
            target=self._watch, args=(self._receiver,), name="mindtrace-jobs-signals", daemon=True
        )
        start_thread(thread)
        self._thread = thread

    def _watch(self, receiver: socket.socket) -> None:
        this, goes_on = threading.current_thread(), True
        while goes_on:
            is_needed = self._thread is this and self._tell is not None
            has_come = is_readable(receiver, None if is_needed else _IDLE_S)
            with self._lock:
                if self._thread is not this:  # a signal handler raised as it was started
                    return
                goes_on = self._read() if has_come else self._tell is not None
                if not goes_on:
                    self._forget()

    def _read(self) -> bool:
        """Read what has come, and return whether more may come. The caller has the lock."""
        try:
            came = self._receiver.recv(4096)
        except BlockingIOError:  # the other thread was first
            return True
        numbers = came.replace(_WAKE, b"")
        if numbers and self._tell is not None:
            self._tell(numbers)
        return bool(came)

    def _forget(self) -> None:
        self._receiver.close()
        self._sender.close()
        self._thread = None


signal_watcher = SignalWatcher()
"""That of this process."""
start_anew_in_children(signal_watcher)
atexit.register(signal_watcher.close)
