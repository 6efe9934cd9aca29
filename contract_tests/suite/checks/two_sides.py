"""An account of jobs by a client that isn't disturbed, of what was said and answered over one that is.

A broker notices late that a connection ended, so the account waits until each job is where it may be.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ...domain.errors import BackendUnavailable, JobsError
from ...ports import (
    Ack,
    ConsumerBackend,
    Dead,
    Delivery,
    Message,
    Next,
    PublishOutcome,
    Release,
    Retry,
    Settled,
    Settlement,
    SettleOutcome,
)
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..violation import demand

COUNTS = (SettleOutcome.OK, SettleOutcome.ALREADY)
"""The answers by which a settlement counts."""
LATER_S = 0.2
"""The delay of what is put off."""
_LOOK_S = 0.5


class TwoSides(NamedTuple):
    """One queue, as a client sees it that is disturbed, and as another does that isn't."""

    disturbed: QueueUnderTest
    other: QueueUnderTest
    auditor: ConsumerBackend
    """Takes what the account looks for; of the other client."""


@contextmanager
def two_sides(context: CheckContext) -> Iterator[TwoSides]:
    """Two clients of a fresh queue, of which the first is to be disturbed."""
    with context.backends(2) as (mine, others):
        disturbed, other = context.queue_on(mine), context.queue_on(others)
        yield TwoSides(disturbed, other, other.consumer())


class Found(NamedTuple):
    """Where the account found jobs: what it received and acknowledged, and which are dead."""

    came: list[Delivery]
    dead: list[str]

    @property
    def ids(self) -> list[str]:
        """The ids of what came."""
        return [delivery.id for delivery in self.came]

    def of(self, id_: str) -> "Found":
        """What was found of one job."""
        return Found(
            [each for each in self.came if each.id == id_], [each for each in self.dead if each == id_]
        )

    @property
    def everywhere(self) -> set[str]:
        """Whatever was found anywhere."""
        return {*self.ids, *self.dead}


def account(sides: TwoSides, queue: QueueUnderTest, is_enough: Callable[[Found], bool]) -> Found:
    """Take what there is until that is enough and nothing waits, or time is up."""
    consumer = sides.auditor if queue is sides.other else queue.consumer()
    found = Found([], [])
    give_up = time.monotonic() + queue.context.harness.timeout_s
    while True:
        found.dead[:] = [letter.id for letter in queue.backend.dead_letters(queue.name)]
        if is_enough(found) and not queue.counts().waiting:
            return found
        if time.monotonic() >= give_up:
            return found
        deliveries = queue.receive(consumer, 10, timeout_s=_LOOK_S)
        found.came.extend(deliveries)
        consumer.settle([Ack(delivery.receipt) for delivery in deliveries])


def all_of(ids: Iterable[str]) -> Callable[[Found], bool]:
    """Say that an account is enough which has found all of these."""
    expected = set(ids)
    return lambda found: expected <= found.everywhere


class End(NamedTuple):
    """A way to end a delivery, and where its job is then."""

    words: str
    make: Callable[[str, str], Settlement]
    """Called with the receipt and the name of the following queue."""
    comes_again: bool = False
    is_dead: bool = False
    has_next: bool = False
    attempt: int = 1

    @property
    def job(self) -> str:
        """The id of its job. Another end's may come again late, as the broker notices a cut late."""
        return self.words.replace(" ", "-")


NEXT = "next"
"""The id of a next job."""


def _ack_with_a_next_job(receipt: str, following: str) -> Settlement:
    return Ack(receipt, then=(Next(following, Message(NEXT, b"{}")),))


def _death_with_a_next_job(receipt: str, following: str) -> Settlement:
    return Dead(receipt, "rejected", "no good", then=(Next(following, Message(NEXT, b"{}")),))


ENDS = (
    End("an ack", lambda receipt, _: Ack(receipt)),
    End("a retry", lambda receipt, _: Retry(receipt, 0.0, "again"), comes_again=True, attempt=2),
    End("a retry with a delay", lambda receipt, _: Retry(receipt, LATER_S, "later"), True, attempt=2),
    End("a death", lambda receipt, _: Dead(receipt, "rejected", "no good"), is_dead=True),
    End("a release", lambda receipt, _: Release(receipt), comes_again=True),
    End("a release with a delay", lambda receipt, _: Release(receipt, LATER_S), comes_again=True),
    End("an ack with a next job", _ack_with_a_next_job, has_next=True),
    End("a death with a next job", _death_with_a_next_job, is_dead=True, has_next=True),
)
"""All ways."""


def final_outcome(
    context: CheckContext, consumer: ConsumerBackend, settlement: Settlement, answer: Settled | JobsError
) -> SettleOutcome:
    """Send a settlement again until it is answered for good, as the application does."""
    give_up = time.monotonic() + context.harness.timeout_s
    while isinstance(answer, JobsError) or answer.outcomes[0].keeps_receipt:
        demand("CON-1", time.monotonic() < give_up, f"{settlement} {said_of(answer)} again and again")
        try:
            answer = consumer.settle([settlement])
        except BackendUnavailable as error:
            answer = error
            context.pass_time(0.05)
    return answer.outcomes[0]


def said_of(answer: list[PublishOutcome] | Settled | JobsError | object) -> str:
    """What a call answered, in the words of a report."""
    if isinstance(answer, JobsError):
        return f"raised {type(answer).__name__}: {answer}"
    if isinstance(answer, Settled):
        return f"was answered {[str(outcome) for outcome in answer.outcomes]}"
    if isinstance(answer, list):
        return f"was answered {[str(getattr(each, 'status', each)) for each in answer]}"
    return f"was answered {answer}"
