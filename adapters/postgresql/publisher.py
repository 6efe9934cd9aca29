"""Publishing."""

import secrets
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from time import monotonic

from ...domain.errors import BackendError, JobsError
from ...ports import Guard, Message, PublishOutcome, PublishStatus
from ..shared.chunks import in_chunks
from .binary_format import FALSE, TRUE, byteas, float8, float8s, int4, int4s, int8, int8s, parse_ints, texts
from .connection import Parameter
from .coordination import optional_ttl, optional_version
from .errors import DiskFull, ServerUnreachable
from .session import Session
from .statements import Statements

CHUNK_JOBS = 2000
"""The most messages of one transaction; a block of numbers has 65,536."""
CHUNK_BYTES = 8 * 1024 * 1024
_AGAIN = 2
_RETRIED_S = 60.0
"""How long after an answer was lost a publish of the same id counts as a retry of it."""
_MOST_ANSWERED = 100


class Publisher:
    """Publishes into the queues of a client; any thread may call.

    A request that was never answered is answered UNKNOWN. The next publish of such an id looks up what became
    of it; an id that turns out to be in the queue, or to have been, is then a DUPLICATE (PUB-5).
    """

    def __init__(self, session: Session, statements: Statements) -> None:
        self._session = session
        self._statements = statements
        self.forget_parent()

    def forget_parent(self) -> None:
        """Begin anew, in a process that was forked."""
        self._lock = threading.Lock()
        self._answered: list[int] = []
        """Tokens that the server needn't remember any more."""
        self._open: dict[tuple[str, str], tuple[int, float]] = {}
        """Queue and id of what was answered UNKNOWN, with the token of its request, and until when that
        matters."""

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        """Publish messages, in transactions of bounded size, and answer for each."""
        outcomes: list[PublishOutcome] = []
        failure: JobsError | None = None
        status = PublishStatus.UNKNOWN
        for chunk in in_chunks(
            messages, CHUNK_JOBS, max_bytes=CHUNK_BYTES, size_of=lambda message: len(message.body)
        ):
            if failure is None:
                try:
                    answers = self._publish_chunk(queue, chunk)
                    outcomes += answers
                    failure = next(
                        (each.error for each in answers if each.status is PublishStatus.UNKNOWN), None
                    )
                    continue
                except JobsError as error:
                    if not outcomes:
                        raise
                    failure = error  # told by message, or those before would be left without an answer
                    if isinstance(error, BackendError):  # nothing of it was sent
                        status = PublishStatus.REJECTED
            outcomes += _same_for_all(chunk, status, failure)
        return outcomes

    def publish_guarded(self, queue: str, message: Message, guard: Guard) -> PublishOutcome | None:
        """Publish a message and write the guard's record, or neither (CRD-4).

        Raises:
            DiskFull: the server has no room for both; nothing was done.
        """
        token, answered = secrets.randbits(63), self._take_answered()
        parameters: list[Parameter] = [
            queue.encode(),
            int8(token),
            FALSE,
            int8s(answered),
            message.id.encode(),
            message.body,
            int4(message.priority),
            float8(message.delay_s),
            guard.key.encode(),
            bytes(guard.value),
            optional_version(guard.expected),
            optional_ttl(guard.ttl_s),
        ]
        try:
            answer = self._session.run(
                self._statements.publish_guarded, parameters, queue=queue, again=_AGAIN
            )
        except ServerUnreachable as out:
            error = self._session.unavailable(out)
            if not out.may_have_run:
                raise error from out.error
            return PublishOutcome(message.id, PublishStatus.UNKNOWN, error)
        duplicates = answer.value(0, 0)
        with self._lock:
            self._answered += answered if duplicates is None else [token]
        if duplicates is None:
            return None
        is_new = not parse_ints(duplicates)
        return PublishOutcome(message.id, PublishStatus.ACCEPTED if is_new else PublishStatus.DUPLICATE)

    def close(self) -> None:
        """Have the server forget what it keeps for this publisher; if that fails, it does later."""
        with self._lock:
            answered, self._answered = self._answered, []
        if answered:
            with suppress(JobsError, ServerUnreachable):
                self._session.run(self._statements.forget_publishes, [int8s(answered)], queue="")

    def _publish_chunk(self, queue: str, messages: list[Message]) -> list[PublishOutcome]:
        if self._open:
            return self._publish_open(queue, messages)
        return self._send(queue, messages)

    def _send(self, queue: str, messages: list[Message]) -> list[PublishOutcome]:
        token, answered = secrets.randbits(63), self._take_answered()
        is_plain = not any(message.priority or message.delay_s for message in messages)
        parameters: list[Parameter] = [
            queue.encode(),
            int8(token),
            FALSE,
            int8s(answered),
            texts([message.id for message in messages]),
            byteas([message.body for message in messages]),
            None if is_plain else int4s([message.priority for message in messages]),
            None if is_plain else float8s([message.delay_s for message in messages]),
        ]
        try:
            answer = self._session.run(self._statements.publish, parameters, queue=queue, again=_AGAIN)
        except ServerUnreachable as out:
            error = self._session.unavailable(out)
            if not out.may_have_run:
                raise error from out.error
            until = monotonic() + _RETRIED_S
            with self._lock:
                self._open |= {(queue, message.id): (token, until) for message in messages}
            return _same_for_all(messages, PublishStatus.UNKNOWN, error)
        except DiskFull as full:  # a smaller message may fit
            return _same_for_all(messages, PublishStatus.REJECTED, full)
        with self._lock:
            self._answered.append(token)
        duplicates = set(parse_ints(answer.value(0, 0)))
        new, accepted = tuple.__new__, PublishStatus.ACCEPTED  # a third of what PublishOutcome(...) costs
        if not duplicates:
            return [new(PublishOutcome, (message.id, accepted, None, None, None)) for message in messages]
        return [
            PublishOutcome(message.id, PublishStatus.DUPLICATE if number in duplicates else accepted)
            for number, message in enumerate(messages, 1)
        ]

    def _take_answered(self) -> list[int]:
        """Take tokens along that the server needn't remember any more."""
        with self._lock:
            answered = self._answered[:_MOST_ANSWERED]
            del self._answered[:_MOST_ANSWERED]
        return answered

    def _publish_open(self, queue: str, messages: list[Message]) -> list[PublishOutcome]:
        """Publish what isn't in the queue already though it was answered UNKNOWN."""
        now = monotonic()
        with self._lock:
            self._open = {key: found for key, found in self._open.items() if found[1] > now}
            tokens = {
                message.id: self._open[key][0]
                for message in messages
                if (key := (queue, message.id)) in self._open
            }
        try:
            there = {token: self._was_carried_out(token) for token in set(tokens.values())}
        except ServerUnreachable as out:
            error = self._session.unavailable(out)
            unknown, rejected = PublishStatus.UNKNOWN, PublishStatus.REJECTED
            return [PublishOutcome(m.id, unknown if m.id in tokens else rejected, error) for m in messages]
        known = {id_ for id_, token in tokens.items() if there[token]}
        fresh = [message for message in messages if message.id not in known]
        answers = iter(self._send(queue, fresh) if fresh else [])
        with self._lock:
            for id_ in tokens:  # answered now; the next publish of such an id is a new one
                if self._open.get((queue, id_), (None,))[0] == tokens[id_]:
                    self._open.pop((queue, id_))
        return [
            PublishOutcome(m.id, PublishStatus.DUPLICATE) if m.id in known else next(answers)
            for m in messages
        ]

    def _was_carried_out(self, token: int) -> bool:
        answer = self._session.run(self._statements.was_carried_out, [int8(token)], queue="")
        return answer.value(0, 0) == TRUE


def _same_for_all(
    messages: Iterable[Message], status: PublishStatus, error: JobsError
) -> list[PublishOutcome]:
    return [PublishOutcome(message.id, status, error) for message in messages]
