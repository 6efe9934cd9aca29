"""Requests that are carried out once, however often they are sent."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ...domain.errors import JobsError
from .errors import ServerUnreachable
from .remote_queue import RemoteQueue
from .retrying_connection import Call
from .scripts import Script
from .transport import Argument

ContentT = TypeVar("ContentT")

KEEP_ANSWER_MS = 600_000
"""How long the server keeps an answer for the case that it was lost."""


@dataclass(slots=True)
class Request(Generic[ContentT]):
    """A request under its number."""

    number: int
    call: Call
    content: ContentT
    """What its sender must know of it, should the answer come late."""


class NumberedRequests(Generic[ContentT]):
    """Numbers the requests of one sender, and keeps the one that was never answered.

    The server remembers number and answer of each sender's last request. One that is sent again under its
    number is answered as before; one that a later request has overtaken is refused as STALE, and changes
    nothing. So what became of an unanswered request must be found out before another is sent.

    Args:
        queue: The queue that they are about.
        script: The script that they run; its first argument is the number.
        sender: The sender's name; no other may have it.
    """

    def __init__(self, queue: RemoteQueue, script: Script, sender: str) -> None:
        self._redis = queue.redis
        self._script = script
        self._keys = queue.keys.of(script, sender)
        self._record = queue.keys.last(sender)
        self._last_number = 0
        self.unanswered: Request[ContentT] | None = None

    def make(self, arguments: Sequence[Argument], content: ContentT) -> Request[ContentT]:
        """Make the next request."""
        self._last_number += 1
        call = (self._script, self._keys, [self._last_number, *arguments])
        return Request(self._last_number, call, content)

    def send(self, request: Request[ContentT], *, retry_timeout_s: float | None = None) -> Any:
        """Carry a request out, or learn its answer if it was before; else as the connection's ``run``."""
        return self._redis.run(*request.call, retry_timeout_s=retry_timeout_s)

    def keep(self, request: Request[ContentT]) -> None:
        """Keep a request that may or may not have been carried out, unless a later one overtook it."""
        if request.number == self._last_number:
            self.unanswered = request

    def look_up(self, request: Request[ContentT], *, retry_timeout_s: float | None = None) -> bytes | None:
        """Return the answer of a request if it was carried out, without sending it again."""
        record: bytes = self._redis.command("GET", self._record, retry_timeout_s=retry_timeout_s) or b""
        number, _, answer = record.partition(b"|")
        return answer if number == b"%d" % request.number else None

    def end(self, *more_keys: str) -> None:
        """Remove the server's record of them, with more keys of the sender; if that fails, they expire."""
        with suppress(JobsError, ServerUnreachable):
            self._redis.unlink_unless_late(self._record, *more_keys)


@contextmanager
def operation(queue: RemoteQueue, script: Script) -> Iterator[Callable[[Sequence[Argument]], Any]]:
    """Yield what runs a script, with its arguments behind number and ``KEEP_ANSWER_MS``, each time once.

    Raises:
        BackendError: as of :meth:`RemoteQueue.run`.
    """
    requests = NumberedRequests[None](queue, script, secrets.token_hex(8))
    with queue.errors():
        yield lambda arguments: requests.send(requests.make([KEEP_ANSWER_MS, *arguments], None))
    requests.end()
