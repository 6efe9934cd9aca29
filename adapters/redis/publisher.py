"""Publishing into one queue."""

import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic

from ...domain.errors import BackendUnavailable, QueueNotFound, UsageError
from ...ports import Guard, Message, PublishOutcome, PublishStatus
from ..shared.chunked_publish import publish_in_chunks, same_for_all
from .coordination import SharedCoordinationStore, duration_us
from .errors import RefusedByServer, ServerUnreachable, why_refused
from .requests import CHUNK_BYTES, CHUNK_JOBS, KEEP_ANSWER_MS, NumberedRequests, RemoteQueue
from .scripts import PUBLISH, PUBLISH_GUARDED
from .transport import Argument

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
    """Those of the sender. This request was its last one, so the server keeps the answer."""
    number: int
    """The number of the request."""
    until: float
    """Up to when a publish of the same id counts as a retry."""


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
        """By id, the late answer that says that a message which was answered UNKNOWN is in the queue."""
        self._lock = threading.RLock()
        self._is_busy = False

    def publish(self, messages: Sequence[Message]) -> list[PublishOutcome]:
        """Publish messages, in requests of bounded size, and answer for each."""
        is_first = False
        try:  # an interrupt may come between any two steps, so only the lock itself knows who holds it
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
            except RuntimeError:  # another thread holds the lock
                pass

    def close(self) -> None:
        """Remove what the server remembers of this publisher."""
        self._requests.end()

    def _new_sender(self) -> NumberedRequests[tuple[str, ...]]:
        return NumberedRequests(self._queue, PUBLISH, secrets.token_hex(8))

    def _wait_for_turn(self) -> float:
        """Take the lock, and return for how many seconds the call may go on trying."""
        give_up = monotonic() + self._redis.retry_timeout_s
        if not self._lock.acquire(timeout=self._redis.retry_timeout_s):
            late = self._redis.out_of_time()
            raise self._redis.unavailable(late) from late.error
        return give_up - monotonic()

    def _publish_chunks(
        self, messages: Sequence[Message], retry_timeout_s: float | None
    ) -> list[PublishOutcome]:
        timeouts_s = iter([retry_timeout_s])  # the wait for a turn has spent a part of the first one's
        return publish_in_chunks(
            messages,
            lambda chunk: self._publish_chunk(chunk, next(timeouts_s, None)),
            max_jobs=CHUNK_JOBS,
            max_bytes=CHUNK_BYTES,
            unsent=(QueueNotFound, BackendUnavailable),
        )

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
            return same_for_all(messages, PublishStatus.UNKNOWN, self._redis.unavailable(out))
        except RefusedByServer as error:
            self._queue.check(error)
            if error.may_have_run:
                self._requests.keep(request)
                return same_for_all(messages, PublishStatus.UNKNOWN, error)
            return same_for_all(messages, PublishStatus.REJECTED, why_refused(error))
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
                self._requests = self._new_sender()  # the next request of this one would replace the answer
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
        """Publish all messages but ``known``, which were answered UNKNOWN and are in the queue."""
        fresh = [message for message in messages if message.id not in known]
        answers = iter(self._send(fresh, retry_timeout_s) if fresh else [])
        for id_ in known:  # their outcome is known now, so the next publish of such an id is a new one
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


def publish_guarded(
    queue: RemoteQueue, store: SharedCoordinationStore, message: Message, guard: Guard
) -> PublishOutcome | None:
    """Publish, and write the guard's record, if that has the expected version (CRD-4); None if not.

    Raises:
        BackendUnavailable: the server couldn't be reached in time, and nothing was sent.
        BackendError: as of :meth:`RemoteQueue.run`.
    """
    key, expected, value, ttl_s = guard
    plan = f"{message.priority}:{round(message.delay_s * 1000)}"
    arguments: list[Argument] = [message.id, plan, message.body]
    arguments += (key, str(expected), value, duration_us(ttl_s))
    try:
        answer: bytes = store.senders.run(
            PUBLISH_GUARDED, store.keys.of(PUBLISH_GUARDED, queue.keys), arguments
        )
    except ServerUnreachable as out:
        error = queue.redis.unavailable(out)
        if not out.may_have_run:
            raise error from out.error
        return PublishOutcome(message.id, PublishStatus.UNKNOWN, error)
    except RefusedByServer as refusal:
        queue.check(refusal)
        if refusal.may_have_run:
            return PublishOutcome(message.id, PublishStatus.UNKNOWN, refusal)
        return PublishOutcome(message.id, PublishStatus.REJECTED, why_refused(refusal))
    return PublishOutcome(message.id, _STATUS_OF[answer[0]]) if answer else None
