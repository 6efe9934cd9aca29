"""The requests of a consumer: each has a token of its own, under which it is carried out once."""

import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from ...domain.errors import JobsError
from ...ports import Settlement
from .binary_format import FALSE, TRUE, boolean, float8, int4, int8, int8s, parse_ints
from .connection import Answer, Parameter, Statement
from .errors import ServerUnreachable
from .kept_requests import KeptRequests
from .session import Session
from .settlements import LeasedJob, SettlementBatch
from .statements import Statements

_AGAIN = 2
"""The place of the parameter that says that a request was sent before, in each of them."""
_CLOSE_S = 2.0
_LAST_UNKNOWN = 0
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
    """Whether the consumer waits where there is nothing."""


NO_LOOK = Look(0, int8s([0]), 0, None, False)


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
        ]
        statement = self._statements.settle_and_take
        if batch is not None and batch.next_parameters:
            statement = self._statements.settle_publish_and_take
            parameters += batch.next_parameters
        parameters += [self._queue.encode(), int8(self.kept.last)]
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
            NextQueueMissing: a queue that an ack publishes into isn't declared.
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
            self.kept.answered(request.token, knew_last=_LAST_UNKNOWN not in self.lost(request, answer))
        return answer

    def keep(self, request: Request) -> None:
        """Keep a request that may or may not have been carried out, or whose answer wasn't read."""
        request.parameters[_AGAIN] = TRUE
        self.unanswered = request

    def lost(self, request: Request, answer: Answer) -> set[int]:
        """Read which settlements or extensions were lost, counted from 1.

        Those of jobs that are cancelled, or are to be, are below 0. 0 says that the server didn't know the
        last request.
        """
        if self.is_extension(request):
            return set(parse_ints(answer.value(0, 0)))
        told = answer.value(answer.rows - 1, 2)
        return set(map(int, told.split(b","))) if told else set()

    def forget(self) -> None:
        """Have the server forget what it keeps for this consumer; if that fails, it does later."""
        if over := self.kept.over():
            with suppress(JobsError, ServerUnreachable):
                self._session.run(
                    self._statements.forget_requests,
                    [int8s(over), int8(self.kept.last)],
                    queue=self._queue,
                    retry_timeout_s=_CLOSE_S,
                )
