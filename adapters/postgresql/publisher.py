"""Publishing into the queues of a client."""

import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from time import monotonic

from ...domain.errors import BackendError, JobsError
from ...ports import Guard, Message, PublishOutcome, PublishStatus
from ..shared.chunked_publish import publish_in_chunks, same_for_all
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
_REFUSED = "refused"
"""What ``publish_guarded`` answers if the record has another version. Otherwise it answers a status."""


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
        """The messages that were answered UNKNOWN, by queue and id: the token of their request, and the
        moment up to which a publish of the same id counts as a retry."""

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        """Publish messages, in transactions of bounded size, and answer for each."""
        if len(messages) == 1:
            return self._publish_chunk(queue, messages)
        return publish_in_chunks(
            messages,
            partial(self._publish_chunk, queue),
            max_jobs=CHUNK_JOBS,
            max_bytes=CHUNK_BYTES,
            unsent=(BackendError,),
        )

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
        outcome = (answer.value(0, 0) or b"").decode()
        with self._lock:
            self._answered += answered if outcome == _REFUSED else [token]
        return None if outcome == _REFUSED else PublishOutcome(message.id, PublishStatus(outcome))

    def close(self) -> None:
        """Have the server forget what it keeps for this publisher. If this fails, it forgets that in time."""
        with self._lock:
            answered, self._answered = self._answered, []
        if answered:
            with suppress(JobsError, ServerUnreachable):
                self._session.run(self._statements.forget_publishes, [int8s(answered)], queue="")

    def _publish_chunk(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        if self._open:
            return self._publish_open(queue, messages)
        return self._send(queue, messages)

    def _send(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
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
            return same_for_all(messages, PublishStatus.UNKNOWN, error)
        except DiskFull as full:  # a smaller message may fit
            return same_for_all(messages, PublishStatus.REJECTED, full)
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
        """Return tokens that the server may forget with the next request."""
        with self._lock:
            answered = self._answered[:_MOST_ANSWERED]
            del self._answered[:_MOST_ANSWERED]
        return answered

    def _publish_open(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        """Publish messages of which some were answered UNKNOWN before, and may be in the queue already."""
        with self._lock:
            self._forget_old()
            tokens = self._open_tokens(queue, messages)
        try:
            there = {token: self._was_carried_out(token) for token in set(tokens.values())}
        except ServerUnreachable as out:
            error = self._session.unavailable(out)
            unknown, rejected = PublishStatus.UNKNOWN, PublishStatus.REJECTED
            return [PublishOutcome(m.id, unknown if m.id in tokens else rejected, error) for m in messages]
        known = {id_ for id_, token in tokens.items() if there[token]}
        fresh = [message for message in messages if message.id not in known]
        answers = iter(self._send(queue, fresh) if fresh else [])
        with self._lock:  # their outcome is known now, so the next publish of such an id is a new one
            self._forget_answered(queue, tokens)
        return [
            PublishOutcome(m.id, PublishStatus.DUPLICATE) if m.id in known else next(answers)
            for m in messages
        ]

    def _forget_old(self) -> None:
        now = monotonic()
        self._open = {key: found for key, found in self._open.items() if found[1] > now}

    def _open_tokens(self, queue: str, messages: Sequence[Message]) -> dict[str, int]:
        """Return the tokens of those messages, by id, that were answered UNKNOWN."""
        found = ((message.id, self._open.get((queue, message.id))) for message in messages)
        return {id_: each[0] for id_, each in found if each is not None}

    def _forget_answered(self, queue: str, tokens: dict[str, int]) -> None:
        for id_, token in tokens.items():
            if self._open.get((queue, id_), (None,))[0] == token:
                self._open.pop((queue, id_))

    def _was_carried_out(self, token: int) -> bool:
        answer = self._session.run(self._statements.was_carried_out, [int8(token)], queue="")
        return answer.value(0, 0) == TRUE
