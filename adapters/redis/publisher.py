"""Publishing into one queue."""

import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic

from ...domain.errors import BackendUnavailable, JobsError, QueueNotFound, UsageError
from ...ports import Message, PublishOutcome, PublishStatus
from ..shared.chunks import in_chunks
from .errors import RefusedByServer, ServerUnreachable, why_refused
from .requests import CHUNK_BYTES, CHUNK_JOBS, KEEP_ANSWER_MS, NumberedRequests, RemoteQueue
from .scripts import PUBLISH

_RETRIED_S = 60.0
"""How long after an answer was lost a publish of the same id counts as a retry of it."""
_KEEP_ANSWER = str(KEEP_ANSWER_MS)
_STATUS_OF = {ord("a"): PublishStatus.ACCEPTED, ord("d"): PublishStatus.DUPLICATE}
"""What the script answers for a message."""
_make_outcome: Callable[[tuple[str, PublishStatus, None, None, None]], PublishOutcome] = partial(
    tuple.__new__, PublishOutcome
)
"""A third of what ``PublishOutcome(...)`` costs."""


@dataclass(frozen=True, slots=True, eq=False)
class _LateAnswer:
    """A request that was answered UNKNOWN, and was carried out."""

    requests: NumberedRequests[tuple[str, ...]]
    """The sender's; that was its last, so that the server keeps the answer."""
    number: int
    """The request's."""
    until: float
    """When it stops to matter."""


class Publisher:
    """Publishes into one queue, one request after the other.

    A request that was never answered is answered UNKNOWN. The next publish looks up what became of it; an id
    that turns out to be in the queue is then a DUPLICATE (PUB-5), unless the server lost it since.
    """

    def __init__(self, queue: RemoteQueue) -> None:
        self._queue = queue
        self._redis = queue.redis
        self._requests = self._new_sender()
        self._confirmed_late: dict[str, _LateAnswer] = {}
        """What tells of ids that were answered UNKNOWN that they are in the queue."""
        self._lock = threading.RLock()
        self._is_busy = False

    def publish(self, messages: Sequence[Message]) -> list[PublishOutcome]:
        """Publish messages, in requests of bounded size, and answer for each."""
        is_first = False
        try:  # an interrupt may come between any two steps, so that only the lock knows whose it is
            retry_timeout_s = None if self._lock.acquire(blocking=False) else self._wait_for_turn()
            is_first = not self._is_busy
            if not is_first:
                raise UsageError(
                    f"this thread is publishing to queue {self._queue.name!r} just now, so a signal or log "
                    "handler that interrupted it can't: set a flag in the handler, and publish later"
                )
            self._is_busy = True
            if len(messages) == 1:
                return self._publish_chunk(messages, retry_timeout_s)
            return self._publish_chunks(messages, retry_timeout_s)
        finally:
            if is_first:
                self._is_busy = False
            try:  # noqa: SIM105 - a context costs more than all that stands here
                self._lock.release()
            except RuntimeError:  # it isn't this thread's
                pass

    def close(self) -> None:
        """Remove what the server remembers of this publisher."""
        self._requests.end()

    def _new_sender(self) -> NumberedRequests[tuple[str, ...]]:
        return NumberedRequests(self._queue, PUBLISH, secrets.token_hex(8))

    def _wait_for_turn(self) -> float:
        """Take the lock, and return how many seconds are left then to keep trying."""
        give_up = monotonic() + self._redis.retry_timeout_s
        if not self._lock.acquire(timeout=self._redis.retry_timeout_s):
            late = self._redis.out_of_time()
            raise self._redis.unavailable(late) from late.error
        return give_up - monotonic()

    def _publish_chunks(
        self, messages: Sequence[Message], retry_timeout_s: float | None
    ) -> list[PublishOutcome]:
        outcomes: list[PublishOutcome] = []
        failure: JobsError | None = None
        status = PublishStatus.UNKNOWN
        for chunk in in_chunks(
            messages, CHUNK_JOBS, max_bytes=CHUNK_BYTES, size_of=lambda message: len(message.body)
        ):
            if failure is None:
                try:
                    answers = self._publish_chunk(chunk, retry_timeout_s)
                    outcomes += answers
                    failure, retry_timeout_s = _find_outage(answers), None
                    continue
                except JobsError as error:
                    if not outcomes:
                        raise
                    failure = error  # told by message, or those before would be left without an answer
                    if isinstance(error, QueueNotFound | BackendUnavailable):  # nothing of it was sent
                        status = PublishStatus.REJECTED
            outcomes += _same_for_all(chunk, status, failure)
        return outcomes

    def _publish_chunk(
        self, messages: Sequence[Message], retry_timeout_s: float | None
    ) -> list[PublishOutcome]:
        if self._requests.unanswered is None and not self._confirmed_late:
            return self._send(messages, retry_timeout_s)
        try:
            self._resolve_unanswered(retry_timeout_s)
            known = self._find_confirmed(messages, retry_timeout_s)
        except ServerUnreachable as out:
            return self._answer_unsent(messages, out)
        return self._publish_unconfirmed(messages, known, retry_timeout_s)

    def _send(self, messages: Sequence[Message], retry_timeout_s: float | None) -> list[PublishOutcome]:
        ids, bodies, priorities, delays_s = zip(
            *messages, strict=True
        )  # by C, as most of this method's steps
        plan = _plan(priorities, delays_s) if any(priorities) or any(delays_s) else ""
        request = self._requests.make([_KEEP_ANSWER, ",".join(ids), plan, *bodies], ids)
        try:
            answer: bytes = self._requests.send(request, retry_timeout_s=retry_timeout_s)
        except ServerUnreachable as out:
            if not out.may_have_run:
                raise self._redis.unavailable(out) from out.error
            self._requests.keep(request)
            return _same_for_all(messages, PublishStatus.UNKNOWN, self._redis.unavailable(out))
        except RefusedByServer as error:
            self._queue.check(error)
            if error.may_have_run:
                self._requests.keep(request)
                return _same_for_all(messages, PublishStatus.UNKNOWN, error)
            return _same_for_all(messages, PublishStatus.REJECTED, why_refused(error))
        statuses = map(_STATUS_OF.__getitem__, answer)
        nothing = [None] * len(ids)
        return list(map(_make_outcome, zip(ids, statuses, nothing, nothing, nothing, strict=True)))

    def _resolve_unanswered(self, retry_timeout_s: float | None) -> None:
        """Find out what became of the unanswered request, before another takes its place."""
        sender = self._requests
        request = sender.unanswered
        if request is not None:
            answer = sender.look_up(request.number, retry_timeout_s=retry_timeout_s)
            if answer is not None:
                late = _LateAnswer(sender, request.number, monotonic() + _RETRIED_S)
                for id_, letter in zip(request.content, answer, strict=True):
                    if letter == ord("a"):
                        self._confirmed_late[id_] = late
                self._requests = self._new_sender()  # or the next request would replace the answer
            sender.unanswered = None

    def _find_confirmed(self, messages: Sequence[Message], retry_timeout_s: float | None) -> set[str]:
        """Return the ids that were answered UNKNOWN and are in the queue, or were.

        The server is asked once more: if it came back with older data, it hasn't them any more.
        """
        now = monotonic()
        self._confirmed_late = {id_: late for id_, late in self._confirmed_late.items() if late.until > now}
        ids = {message.id for message in messages}
        for late in {self._confirmed_late[id_] for id_ in ids & self._confirmed_late.keys()}:
            if late.requests.look_up(late.number, retry_timeout_s=retry_timeout_s) is None:
                self._confirmed_late = {
                    id_: each for id_, each in self._confirmed_late.items() if each is not late
                }
        return ids & self._confirmed_late.keys()

    def _answer_unsent(self, messages: Sequence[Message], out: ServerUnreachable) -> list[PublishOutcome]:
        """Answer for messages that weren't sent now; earlier requests may have held some of them."""
        request = self._requests.unanswered
        open_ids = {*(request.content if request is not None else ()), *self._confirmed_late}
        error = self._redis.unavailable(out)
        if open_ids.isdisjoint(message.id for message in messages):
            raise error from out.error
        unknown, rejected = PublishStatus.UNKNOWN, PublishStatus.REJECTED
        return [
            PublishOutcome(message.id, unknown if message.id in open_ids else rejected, error)
            for message in messages
        ]

    def _publish_unconfirmed(
        self, messages: Sequence[Message], known: Collection[str], retry_timeout_s: float | None
    ) -> list[PublishOutcome]:
        """Publish all but ``known``, which is in the queue already though it was answered UNKNOWN."""
        fresh = [message for message in messages if message.id not in known]
        answers = iter(self._send(fresh, retry_timeout_s) if fresh else [])
        for id_ in known:  # answered now; the next publish of such an id is a new one
            self._confirmed_late.pop(id_)
        duplicate = PublishStatus.DUPLICATE
        return [
            PublishOutcome(message.id, duplicate) if message.id in known else next(answers)
            for message in messages
        ]


def _plan(priorities: Iterable[int], delays_s: Iterable[float]) -> str:
    """Write the priority and the delay of each message as the script reads them."""
    return ",".join(
        f"{priority}:{round(delay_s * 1000)}" for priority, delay_s in zip(priorities, delays_s, strict=True)
    )


def _same_for_all(
    messages: Iterable[Message], status: PublishStatus, error: JobsError
) -> list[PublishOutcome]:
    return [PublishOutcome(message.id, status, error) for message in messages]


def _find_outage(outcomes: Iterable[PublishOutcome]) -> JobsError | None:
    """The error that left messages open, so that it is no use to send more."""
    return next((each.error for each in outcomes if each.status is PublishStatus.UNKNOWN), None)
