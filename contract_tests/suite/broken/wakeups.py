"""Faults of waking: each cause by which a job becomes ready or ends, forgotten once."""

import threading
import time
from collections.abc import Callable, Sequence
from math import inf

from ...ports import (
    Ack,
    Dead,
    Delivery,
    Guard,
    JobResult,
    Message,
    PublishOutcome,
    Release,
    Retry,
    Settled,
    Settlement,
)
from .administration import keeps_results
from .fault_registry import breaks
from .guarded_publish import guards
from .leases import timed
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough
from .receiving import WaitsForNotifications


class WakesByEveryCause(WaitsForNotifications):
    """Waits for a condition of its own, which every cause notifies; those that derive from it forget one."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.moments: list[float] = []
        """When something is due, or a lease ends."""

    def wait(self, seen: int, give_up: float) -> None:
        began = self.now()
        with self._condition:
            while self._notified == seen and self.now() < min(give_up, self.next_moment(began)):
                self._condition.wait(0.02)

    def next_moment(self, began: float) -> float:
        """The first moment after a wait began at which there may be a job."""
        return min((moment for moment in self.moments if moment > began), default=inf)

    def plan(self, moment: float) -> None:
        """Have all that wait look again at this moment."""
        self.moments.append(moment)

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        for delivery in deliveries:
            if delivery.deadline_s is not None:
                self.leased(self.now() + delivery.deadline_s)
        return deliveries

    def leased(self, moment: float) -> None:
        """A lease was granted or extended up to this moment."""
        self.plan(moment)

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        outcomes = super().publish(client, queue, messages)
        for message in messages:
            if message.delay_s:
                self.published_later(self.now() + message.delay_s)
        self.notify()
        return outcomes

    def published_later(self, moment: float) -> None:
        """A job was published that is due at a moment."""
        self.plan(moment)

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        answer = super().settle(consumer, settlements, take)
        for settlement in settlements:
            self.settled(settlement)
        return answer

    def settled(self, settlement: Settlement) -> None:
        """A settlement took effect."""
        if isinstance(settlement, Retry) and settlement.delay_s:
            self.retried_later(self.now() + settlement.delay_s)
        elif isinstance(settlement, Retry):
            self.retried()
        elif isinstance(settlement, Release) and settlement.delay_s:
            self.released_later(self.now() + settlement.delay_s)
        elif isinstance(settlement, Release):
            self.released()
        elif isinstance(settlement, Ack) and settlement.then:
            self.published_next()

    def retried(self) -> None:
        """A job was retried without delay."""
        self.notify()

    def retried_later(self, moment: float) -> None:
        """A job was retried, and is due at a moment."""
        self.plan(moment)

    def released(self) -> None:
        """A job was released without delay."""
        self.notify()

    def released_later(self, moment: float) -> None:
        """A job was released, and is due at a moment."""
        self.plan(moment)

    def published_next(self) -> None:
        """An ack published next jobs."""
        self.notify()

    def publish_guarded(
        self, client: BrokenBackend, queue: str, message: Message, guard: Guard
    ) -> PublishOutcome | None:
        outcome = super().publish_guarded(client, queue, message, guard)
        self.notify()
        return outcome

    def redrive(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        redriven = super().redrive(client, queue, ids)
        self.notify()
        return redriven


@breaks("RCV-2")
class ARetryWakesNobody(WakesByEveryCause):
    """A retry without delay wakes no receiver, though a publish and a release do."""

    def retried(self) -> None:
        pass


@breaks("DLY-2")
class ADelayedRetryWakesNobody(WakesByEveryCause):
    """When a retried job is due is not planned for by a receiver that waits already."""

    def retried_later(self, moment: float) -> None:
        pass


@breaks("DLY-2")
class ARetryDueSoonerWakesNobody(WakesByEveryCause):
    """A receiver plans for the job that was due first when it began to wait, not for a retry due sooner."""

    def retried_later(self, moment: float) -> None:
        if not any(each > self.now() for each in self.moments):
            self.plan(moment)


@breaks("DLY-2")
class ADelayedReleaseWakesNobody(WakesByEveryCause):
    """When a released job is due is not planned for by a receiver that waits already."""

    def released_later(self, moment: float) -> None:
        pass


@breaks("CRD-4", where=guards)
class AGuardedPublishWakesNobody(WakesByEveryCause):
    """A guarded publish wakes no receiver, as it isn't an ordinary publish."""

    def publish_guarded(
        self, client: BrokenBackend, queue: str, message: Message, guard: Guard
    ) -> PublishOutcome | None:
        return PassThrough.publish_guarded(self, client, queue, message, guard)


@breaks("LSE-1", where=timed)
class ALaterLeaseWakesNobody(WakesByEveryCause):
    """A receiver plans for the leases that stand when it is called, and for no later one."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._ends: list[float] = []
        self._call = threading.local()

    def leased(self, moment: float) -> None:
        self._ends.append(moment)

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        self._call.known = min((moment for moment in self._ends if moment > self.now()), default=inf)
        return super().receive(consumer, max_jobs, timeout_s)

    def wait(self, seen: int, give_up: float) -> None:
        super().wait(seen, min(give_up, self._call.known))


@breaks("RCV-2")
class ABatchWakesOneReceiver(WakesByEveryCause):
    """A publish of several jobs at once wakes one receiver, and the others sleep on."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._tokens = 0

    def wait(self, seen: int, give_up: float) -> None:
        began = self.now()
        with self._condition:
            while self._notified == seen and self.now() < min(give_up, self.next_moment(began)):
                if self._tokens:
                    self._tokens -= 1
                    return
                self._condition.wait(0.02)

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        outcomes = PassThrough.publish(self, client, queue, messages)
        with self._condition:
            self._tokens = 1
            self._condition.notify_all()
        return outcomes


@breaks("RCV-2")
class ARedriveWakesNobody(WakesByEveryCause):
    """A redrive wakes no receiver, as it isn't a publish."""

    def redrive(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        return PassThrough.redrive(self, client, queue, ids)


@breaks("RCV-2")
class PollsBehindABrokenNotification(WaitsForNotifications):
    """No notification arrives, as with LISTEN behind a pooler, and a poll of 0.7 s hides it."""

    def wait(self, seen: int, give_up: float) -> None:
        with self._condition:
            if self._notified == seen:
                self._condition.wait(0.7)


@breaks("RCV-2")
class WakesBeforeTheCommit(WakesByEveryCause):
    """A publish notifies before it commits: who looks at once finds nothing, and sleeps on."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        self.notify()
        time.sleep(0.01)
        return PassThrough.publish(self, client, queue, messages)


@breaks("RCV-1")
class AnInterruptEndsAllWaits(WakesByEveryCause):
    """Interrupting one consumer ends the wait of every other too."""

    def interrupt(self, consumer: BrokenConsumer) -> None:
        for each in self._waiting | {consumer}:
            super().interrupt(each)

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._waiting: set[BrokenConsumer] = set()

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        self._waiting.add(consumer)
        try:
            return super().receive(consumer, max_jobs, timeout_s)
        finally:
            self._waiting.discard(consumer)


class TellsOfEveryEnd(PassThrough):
    """Waits for results on a condition of its own; those that derive from it forget to notify it once."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._condition = threading.Condition()
        self._told = 0

    def tell(self) -> None:
        """Wake all who wait for a result."""
        with self._condition:
            self._told += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout_s: float) -> None:
        """Wait until something was told since ``seen``."""
        with self._condition:
            if self._told == seen:
                self._condition.wait(timeout_s)

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        give_up = time.monotonic() + timeout_s
        while True:
            seen = self._told
            found = super().result(client, queue, job_id, 0.0)
            left_s = give_up - time.monotonic()
            if found is not None or left_s <= 0:
                return found
            self.wait(seen, left_s)

    def ended(self, settlement: Settlement) -> bool:
        """Whether to tell of this settlement."""
        return isinstance(settlement, Ack | Dead)

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        answer = super().settle(consumer, settlements, take)
        if any(map(self.ended, settlements)):
            self.tell()
        return answer

    def delete(self, client: BrokenBackend, queue: str) -> None:
        super().delete(client, queue)
        self.tell()

    def close(self, client: BrokenBackend) -> None:
        super().close(client)
        self.tell()


@breaks("RES-1", where=keeps_results)
class NobodyIsToldOfADeath(TellsOfEveryEnd):
    """Who waits for a result is told of jobs that are done, and not of one that died."""

    def ended(self, settlement: Settlement) -> bool:
        return isinstance(settlement, Ack)


@breaks("RES-1", where=keeps_results)
class NobodyIsToldOfAnEmptyResult(TellsOfEveryEnd):
    """Who waits for a result isn't told of a job that is done without one."""

    def ended(self, settlement: Settlement) -> bool:
        return isinstance(settlement, Dead) or (isinstance(settlement, Ack) and settlement.result is not None)


@breaks("RES-1", where=keeps_results)
class NobodyIsToldOfADelete(TellsOfEveryEnd):
    """Who waits for a result of a queue that is deleted waits until the timeout."""

    def delete(self, client: BrokenBackend, queue: str) -> None:
        PassThrough.delete(self, client, queue)


@breaks("RES-1", where=keeps_results)
class OneOfTheWaitersIsTold(TellsOfEveryEnd):
    """Of several who wait for the result of one job, one is told, as a list is popped once."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._tokens = 0

    def tell(self) -> None:
        with self._condition:
            self._tokens += 1
            self._condition.notify()

    def wait(self, seen: int, timeout_s: float) -> None:
        with self._condition:
            if self._condition.wait_for(lambda: self._tokens > 0, timeout_s):
                self._tokens -= 1

    def delete(self, client: BrokenBackend, queue: str) -> None:
        with self._condition:
            self._tokens += 100
            self._condition.notify_all()
        PassThrough.delete(self, client, queue)


@breaks("RES-1", where=keeps_results)
class PollsForResults(TellsOfEveryEnd):
    """Who waits for a result looks every 0.7 s, as Celery's database backend polls."""

    def wait(self, seen: int, timeout_s: float) -> None:
        time.sleep(min(0.7, timeout_s))


@breaks("RES-1", where=keeps_results)
class AWaiterThatLeavesTakesAllAlong(PassThrough):
    """Who waits is counted, and one whose time is up sets the count to none: nobody wakes the others."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._left = 0.0
        """When somebody left last."""

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        began, found = time.monotonic(), super().result(client, queue, job_id, 0.0)
        while found is None and time.monotonic() - began < timeout_s:
            time.sleep(0.005)
            if self._left < began:
                found = super().result(client, queue, job_id, 0.0)
        if found is None and timeout_s > 0:
            self._left = time.monotonic()
        return found
