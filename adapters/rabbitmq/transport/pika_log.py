"""What pika logs of our connections: dropped, because it logs every failed try as an error, several times.

Our own log tells of an outage once. What pika logs of a program's other connections stays, and so do the
levels of its loggers. Who sets the level of the logger ``pika`` to DEBUG sees what it logs of ours as well.
"""

import logging
import sys
import threading
from types import TracebackType

import pika

from .pika_io_loop import PikaIOLoop
from .pika_private import resolver_loop

_PIKA = logging.getLogger(pika.__name__)


class _Driving(threading.local):
    """Entered by a thread while it runs pika's code for one of our connections."""

    depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.depth -= 1


driving = _Driving()


def _is_wanted(_record: logging.LogRecord) -> bool:
    """Say whether a record is to be logged; as a filter it is called in the thread that logs."""
    return not (driving.depth or _resolves_ours()) or 0 < _PIKA.level <= logging.DEBUG


def _resolves_ours() -> bool:
    """Whether this thread is a timer by which pika looks up a host for a loop of ours."""
    return isinstance(resolver_loop(getattr(threading.current_thread(), "function", None)), PikaIOLoop)


for _name in [name for name in sys.modules if name.partition(".")[0] == pika.__name__]:
    logging.getLogger(_name).addFilter(_is_wanted)  # a filter doesn't hold for the loggers below its own
