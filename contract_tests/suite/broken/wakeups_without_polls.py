"""Faults of waking that a poll hides: it comes sooner than anyone could tell from a wake-up."""

from collections.abc import Callable, Sequence
from functools import partial

from ...ports import Ack, Guard, Message, PublishOutcome, Settlement
from .administration import keeps_results
from .caller_transactions import joins
from .fault_registry import breaks
from .guarded_publish import guards
from .leases import timed
from .next_jobs import chains
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough
from .wakeups import ABatchWakesOneReceiver, TellsOfEveryEnd, WakesByEveryCause

_POLL_S = 0.05


def wait_or_poll(fault: WakesByEveryCause, wait: Callable[[], None], seen: int) -> None:
    """Wait as ever where polls are off; else for a notification since ``seen``, or until the next look."""
    if not fault.polls:
        wait()
        return
    with fault._condition:
        if fault._notified == seen:
            fault._condition.wait(_POLL_S)


class PollsAsWell(WakesByEveryCause):
    """Each cause wakes who waits, and who waits looks by itself as well; those that derive forget a cause."""

    def wait(self, seen: int, give_up: float) -> None:
        wait_or_poll(self, partial(super().wait, seen, give_up), seen)


@breaks("RCV-2")
class APollHidesAPublish(PollsAsWell):
    """A publish wakes no receiver, which finds the job at its next look."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        return PassThrough.publish(self, client, queue, messages)


@breaks("RCV-2")
class APollHidesARetry(PollsAsWell):
    """A retry without delay wakes no receiver, which finds the job at its next look."""

    def retried(self) -> None:
        pass


@breaks("RCV-2")
class APollHidesARelease(PollsAsWell):
    """A release wakes no receiver, which finds the job at its next look."""

    def released(self) -> None:
        pass


@breaks("RCV-2")
class APollHidesARedrive(PollsAsWell):
    """A redrive wakes no receiver, which finds the jobs at its next look."""

    def redrive(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        return PassThrough.redrive(self, client, queue, ids)


@breaks("RCV-2")
class APollHidesAClose(PollsAsWell):
    """What a consumer that closes gives back wakes no receiver, which finds it at its next look."""

    def close_consumer(self, consumer: BrokenConsumer) -> None:
        PassThrough.close_consumer(self, consumer)


@breaks("RCV-2")
class APollHidesAnInterrupt(PollsAsWell):
    """An interrupt is a flag that a receiver sees at its next look."""

    def interrupt(self, consumer: BrokenConsumer) -> None:
        self._interrupted.add(consumer)


@breaks("RCV-2")
class APollHidesTheRestOfABatch(ABatchWakesOneReceiver):
    """A batch wakes one receiver, and the others find their jobs at their next looks."""

    def wait(self, seen: int, give_up: float) -> None:
        wait_or_poll(self, partial(super().wait, seen, give_up), seen)


@breaks("DLY-2")
class APollHidesADelayedPublish(PollsAsWell):
    """When a published job is due is not planned for by a receiver that waits, which looks now and then."""

    def published_later(self, moment: float) -> None:
        pass


@breaks("DLY-2")
class APollHidesADelayedRetry(PollsAsWell):
    """When a retried job is due is not planned for by a receiver that waits, which looks now and then."""

    def retried_later(self, moment: float) -> None:
        pass


@breaks("DLY-2")
class APollHidesADelayedRelease(PollsAsWell):
    """When a released job is due is not planned for by a receiver that waits, which looks now and then."""

    def released_later(self, moment: float) -> None:
        pass


@breaks("LSE-1", where=timed)
class APollHidesTheEndOfALease(PollsAsWell):
    """When a lease ends is not planned for by a receiver that waits, which looks now and then."""

    def leased(self, moment: float) -> None:
        pass


@breaks("PUB-7", where=joins)
class APollHidesACommit(PollsAsWell):
    """A commit wakes no receiver, which finds the jobs at its next look."""


@breaks("THEN-1", where=chains)
class APollHidesANextJob(PollsAsWell):
    """A next job wakes no receiver, which finds it at its next look."""

    def published_next(self) -> None:
        pass


@breaks("CRD-4", where=guards)
class APollHidesAGuardedPublish(PollsAsWell):
    """A guarded publish wakes no receiver, which finds the job at its next look."""

    def publish_guarded(
        self, client: BrokenBackend, queue: str, message: Message, guard: Guard
    ) -> PublishOutcome | None:
        return PassThrough.publish_guarded(self, client, queue, message, guard)


@breaks("RES-1", where=keeps_results)
class APollHidesAnEnd(TellsOfEveryEnd):
    """Who waits for a result isn't told of an ack, and finds it at its next look."""

    def wait(self, seen: int, timeout_s: float) -> None:
        super().wait(seen, min(timeout_s, _POLL_S) if self.polls else timeout_s)

    def ended(self, settlement: Settlement) -> bool:
        return not isinstance(settlement, Ack)
