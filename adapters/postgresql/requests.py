"""The requests of a consumer: each has a token of its own, under which it is carried out once.

The server keeps a row of each, until the consumer tells that it may forget it (ADR 82).
"""

import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from ...domain.errors import JobsError
from ...ports import Settlement
from .binary_format import FALSE, TRUE, boolean, float8, int4, int8, int8s
from .connection import Answer, Parameter, Statement
from .errors import ServerUnreachable
from .session import Session
from .settlements import Ends, LeasedJob, SettlementBatch, read_extension, read_summary
from .statements import Statements

_AGAIN = 2
"""The place, in each request, of the parameter that says that the request was sent before."""
_CLOSE_S = 2.0
_NO_SETTLEMENTS = SettlementBatch({}).parameters


class Request(NamedTuple):
    """A request that changes something."""

    token: int
    statement: Statement
    parameters: list[Parameter]
    receipts: list[str]
    """What it settles or extends, in the order of its items."""


class Look(NamedTuple):
    """How a request is to take jobs."""

    most: int
    """How many at most."""
    starts: bytes
    returned: int
    sweep_s: float | None
    """How many seconds to look back for what is due and for leases that have ended; None for not at all."""
    is_to_wait: bool
    """Whether the consumer will wait if no job is ready."""


NO_LOOK = Look(0, int8s([0]), 0, None, False)


class KeptRequests:
    """The requests of one consumer of which the server keeps a row, by token.

    A request that took or extended jobs is also their lease. The server may forget it once each of these jobs
    is settled or has a later lease. If the consumer doesn't know whether that is so, it doesn't let the
    server forget the lease, which then ends when its time is over.
    """

    def __init__(self) -> None:
        self._jobs: dict[int, int] = {}
        """How many jobs of each lease are still held. Leases of which that isn't known are left out."""
        self._over: list[int] = []
        self._last = 0

    @property
    def last(self) -> int:
        """The last answered request that settled or extended anything; 0 for none.

        If the server doesn't know it, a crash has taken back what the consumer was told, and the server
        forgets nothing.
        """
        return self._last

    def over(self) -> list[int]:
        """Return the requests that the server may forget, provided that it knows the last one."""
        return self._over

    def forgettable(self) -> list[int]:
        """Return what the server may forget with the next request. The last one isn't among it yet."""
        return [token for token in self._over if token != self._last]

    def begin(self, token: int, jobs: int) -> None:
        """Note how many jobs have the request as their lease."""
        if jobs:
            self._jobs[token] = jobs
        else:
            self._over.append(token)

    def leave(self, token: int) -> None:
        """Note that a job has this lease no more."""
        left = self._jobs.pop(token, 0) - 1
        if left > 0:
            self._jobs[token] = left
        elif left == 0:
            self._over.append(token)

    def distrust(self, token: int) -> None:
        """Note that a job of this lease was lost: only the server knows what became of the job."""
        self._jobs.pop(token, None)

    def answered(self, token: int, *, knew_last: bool) -> None:
        """Note that a request was answered that settled or extended jobs, and named what to forget.

        Args:
            token: The request.
            knew_last: Whether the server knew the request before it. If not, a crash has undone that request,
                and jobs that had left a lease may be in it again.
        """
        self._over = [each for each in self._over if each == self._last]
        if self._last and not knew_last:
            self._jobs.clear()
        self._last = token


class Requests:
    """Makes and sends the requests of one consumer, and keeps the one that was never answered.

    Args:
        session: The way to the server.
        statements: The statements for the session's schema.
        queue: The queue's name.
        lease_s: How long jobs are leased, in seconds.
    """

    def __init__(self, session: Session, statements: Statements, queue: str, lease_s: float) -> None:
        self._session = session
        self._statements = statements
        self._queue = queue
        self._lease_s = lease_s
        self.kept = KeptRequests()
        self.unanswered: Request | None = None

    def settlement(
        self, key: int, known: Mapping[str, tuple[LeasedJob, Settlement]], look: Look = NO_LOOK
    ) -> Request:
        """Make a request that settles and takes.

        Args:
            key: The queue's key.
            known: What to settle, by receipt, each with its lease.
            look: How to take.
        """
        batch = SettlementBatch(known) if known else None
        token = secrets.randbits(63)
        parameters: list[Parameter] = [
            int4(key),
            int8(token),
            FALSE,
            int8s(self.kept.forgettable()) if known else int8s(()),
            *(batch.parameters if batch else _NO_SETTLEMENTS),
            int4(look.most),
            float8(self._lease_s),
            look.starts,
            int8(look.returned),
            None if look.sweep_s is None else float8(look.sweep_s),
            boolean(look.is_to_wait),
            self._queue.encode(),
            int8(self.kept.last),
        ]
        statement = self._statements.settle_and_take
        if batch is not None and batch.next_parameters:
            statement = self._statements.settle_publish_and_take
            parameters += batch.next_parameters
        return Request(token, statement, parameters, batch.receipts if batch else [])

    def extension(self, key: int, known: Mapping[str, LeasedJob]) -> Request:
        """Make a request that extends leases, given by receipt."""
        token = secrets.randbits(63)
        places, seqs, tokens = zip(*known.values(), strict=True)
        parameters: list[Parameter] = [
            int4(key),
            int8(token),
            FALSE,
            int8s(self.kept.forgettable()),
            int8s(list(set(tokens))),
            int8s(places),
            int8s(seqs),
            int8s(tokens),
            float8(self._lease_s),
            self._queue.encode(),
            int8(self.kept.last),
        ]
        return Request(token, self._statements.extend, parameters, list(known))

    def is_extension(self, request: Request) -> bool:
        """Whether a request extends leases."""
        return request.statement is self._statements.extend

    def send(self, request: Request) -> Answer:
        """Have a request carried out, or learn its answer if it was before.

        One that may or may not have been carried out is kept.

        Raises:
            BackendUnavailable: the server couldn't be reached in time.
            QueueNotFound: the queue isn't declared.
            NextQueueMissing: a queue that a settlement publishes into isn't declared.
            BackendError: the server refused otherwise.
        """
        try:
            answer = self._session.run(
                request.statement, request.parameters, queue=self._queue, again=_AGAIN, of_consumer=True
            )
        except ServerUnreachable as out:
            if out.may_have_run:
                self.keep(request)
            raise self._session.unavailable(out) from out.error
        except JobsError:
            raise
        except BaseException:  # an interrupt
            self.keep(request)
            raise
        if request.receipts:
            self.kept.answered(request.token, knew_last=self.ends(request, answer).knew_last)
        return answer

    def keep(self, request: Request) -> None:
        """Keep a request to send it again: it may have been carried out, or its answer wasn't read."""
        request.parameters[_AGAIN] = TRUE
        self.unanswered = request

    def ends(self, request: Request, answer: Answer) -> Ends:
        """Read what became of what a request settles or extends."""
        return read_extension(answer) if self.is_extension(request) else read_summary(answer).ends

    def forget(self) -> None:
        """Have the server forget what it keeps for this consumer. If this fails, it forgets that in time."""
        if over := self.kept.over():
            with suppress(JobsError, ServerUnreachable):
                self._session.run(
                    self._statements.forget_requests,
                    [int8s(over), int8(self.kept.last)],
                    queue=self._queue,
                    retry_timeout_s=_CLOSE_S,
                )
