"""Requests: scripts on the keys of a queue. The server carries out a numbered one once."""

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

from ...domain.errors import JobsError
from ..shared.error_messages import not_declared
from .errors import QueueDamaged, RefusedByServer, ServerUnreachable, names_no_queue, refuse_for_now
from .keys import QueueKeys
from .scripts import FIND_ANSWER, Script
from .transport import Argument, Call, RetryingConnection

CHUNK_JOBS = 500
"""The most jobs of one request, so that the server is never busy with one caller for long."""
CHUNK_BYTES = 4 * 1024 * 1024
"""The most bytes of one request or answer; an item that is larger has a request of its own."""

ContentT = TypeVar("ContentT")

KEEP_ANSWER_MS = 600_000
"""How long the server keeps an answer, in case that it was lost on its way."""


class RemoteQueue:
    """Runs scripts on the keys of one queue, and names the queue in errors.

    Args:
        redis: The connection to the server.
        keys: The queue's keys.
    """

    def __init__(self, redis: RetryingConnection, keys: QueueKeys) -> None:
        self.redis = redis
        self.keys = keys
        self.errors = _Errors(self)
        """A context that raises what :meth:`run` does for errors of the connection."""

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.keys.queue

    def run(self, script: Script, arguments: Sequence[Argument] = ()) -> Any:
        """Run a script, and return its answer.

        Raises:
            BackendUnavailable: the server couldn't be reached in time.
            QueueNotFound: the queue isn't declared.
            QueueDamaged: somebody else wrote one of its keys.
            BackendError: the server refused otherwise.
        """
        with self.errors:
            return self.redis.run(script, self.keys.of(script), arguments)

    def check(self, refusal: RefusedByServer) -> None:
        """Raise QueueNotFound if the script's error is NOQUEUE, and QueueDamaged if it is WRONGTYPE."""
        if names_no_queue(refusal):
            raise not_declared(self.name) from None
        if "WRONGTYPE" in str(refusal):
            raise QueueDamaged(
                f"queue {self.name!r}: one of its keys in Redis has the wrong type; "
                "mindtrace-jobs doctor names it"
            ) from refusal


class _Errors(AbstractContextManager[None]):
    """A context without state, so that one object serves all calls: each call costs latency."""

    def __init__(self, queue: RemoteQueue) -> None:
        self._queue = queue

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, RefusedByServer):
            self._queue.check(error)
            refuse_for_now(error)
        elif isinstance(error, ServerUnreachable):
            raise self._queue.redis.unavailable(error) from error.error


@dataclass(slots=True)
class Request(Generic[ContentT]):
    """A request under its number."""

    number: int
    token: str
    """Names the request among those of all senders."""
    call: Call
    content: ContentT
    """What its sender needs to know of it if the answer comes late."""


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
        self.record = queue.keys.last(sender)
        """The key where the server remembers the last of them."""
        self.sender = sender
        self._queue = queue.keys
        self._last_number = 0
        self.unanswered: Request[ContentT] | None = None

    def make(self, arguments: Sequence[Argument], content: ContentT) -> Request[ContentT]:
        """Make the next request."""
        self._last_number += 1
        number = self._last_number
        call = (self._script, self._keys, [str(number), *arguments])
        return Request(number, f"{self.sender}:{number}", call, content)

    def send(self, request: Request[ContentT], *, retry_timeout_s: float | None = None) -> Any:
        """Carry a request out, or learn its answer if it was before; else as the connection's ``run``."""
        return self._redis.run(*request.call, retry_timeout_s=retry_timeout_s)

    def keep(self, request: Request[ContentT]) -> None:
        """Keep a request that may or may not have been carried out, unless a later one overtook it."""
        if request.number == self._last_number:
            self.unanswered = request

    def look_up(self, number: int, *, retry_timeout_s: float | None = None) -> bytes | None:
        """Return the answer of a request if it was carried out, without sending it again.

        None as well if the queue was deleted since.
        """
        keys = self._queue.of(FIND_ANSWER, self.sender)
        arguments = [str(number), str(KEEP_ANSWER_MS), self._queue.queue]
        answer: bytes | None = self._redis.run(FIND_ANSWER, keys, arguments, retry_timeout_s=retry_timeout_s)
        return answer

    def end(self, *more_keys: str) -> None:
        """Remove the server's record of them, and more keys of the sender. If this fails, they expire."""
        with suppress(JobsError, ServerUnreachable):
            self._redis.unlink_unless_late(self.record, *more_keys)


@contextmanager
def operation(queue: RemoteQueue, script: Script) -> Iterator[Callable[[Sequence[Argument]], Any]]:
    """Yield a function that runs a script once. Number and ``KEEP_ANSWER_MS`` come before its arguments.

    Raises:
        BackendError: as of :meth:`RemoteQueue.run`.
    """
    requests = NumberedRequests[None](queue, script, secrets.token_hex(8))
    with queue.errors:
        yield lambda arguments: requests.send(requests.make([str(KEEP_ANSWER_MS), *arguments], None))
    requests.end()


class Senders:
    """Numbers requests that may be under way at the same time. Each has a sender that has no other just now.

    If a request wasn't answered, its sender isn't used again, so nobody needs to find out what became of the
    request. If it is still on its way, the server may carry it out late.

    Args:
        redis: The connection to the server.
        record: Names the key where the server remembers the last request of a sender.
    """

    def __init__(self, redis: RetryingConnection, record: Callable[[str], str]) -> None:
        self._redis = redis
        self._record = record
        self._idle: list[_Sender] = []
        self._pid = os.getpid()

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run a script once, as the connection's ``run`` does. The sender's record is its first key."""
        sender = self._take()
        sender.requests += 1
        answer = self._redis.run(
            script, [sender.record, *keys], [str(sender.requests), str(KEEP_ANSWER_MS), *arguments]
        )
        self._idle.append(sender)
        return answer

    def end(self) -> None:
        """Remove the server's records of them. If this fails, they expire."""
        idle, self._idle = self._idle, []
        if idle and self._pid == os.getpid():
            with suppress(JobsError, ServerUnreachable):
                self._redis.unlink_unless_late(*(sender.record for sender in idle))

    def _take(self) -> "_Sender":
        if self._pid != os.getpid():  # forked: these are the parent's
            self._idle, self._pid = [], os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return _Sender(self._record(secrets.token_hex(8)))


@dataclass(slots=True)
class _Sender:
    """One sender: the key of its record, and how many requests it has made."""

    record: str
    requests: int = 0
