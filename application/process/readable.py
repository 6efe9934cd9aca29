"""Whether something can be read from a descriptor."""

import selectors
import socket

# `select` knows no descriptor above 1,023, and `DefaultSelector` may be a descriptor itself.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


def is_readable(file: int | socket.socket, timeout_s: float | None) -> bool:
    """Wait up to ``timeout_s`` seconds, or for ever if it is None, until ``file`` has something to read.

    A signal may end the wait earlier. What is closed counts as readable, so that reading it raises.
    """
    with _Selector() as selector:
        selector.register(file, selectors.EVENT_READ)
        return bool(selector.select(timeout_s))
