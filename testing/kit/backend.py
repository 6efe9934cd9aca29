"""Queues in memory that note what happens, and whose workers can be killed."""

import threading
from collections.abc import Collection, Mapping, Sequence

from ..adapters.local.client import LocalClient, LocalEndedJobs
from ..adapters.local.consumer import LocalConsumerBackend
from ..adapters.local.namespace import Namespace
from ..adapters.local.queue import LocalQueue
from ..application.failures.failed_attempts import explained
from ..domain.bounds import MAX_LISTED
from ..domain.defaults import DEFAULT_RESULT_TTL_S
from ..domain.errors import UsageError
from ..ports import (
    CancelOutcome,
    DeadLetter,
    Delivery,
    Guard,
    JobResult,
    Message,
    PublishOutcome,
    PublishStatus,
    Release,
    ResultStatus,
    Settled,
    Settlement,
    SettleOutcome,
)
from .history import History
from .virtual_clock import NotingStore, VirtualClock


class Faults:
    """What is to happen to the next attempts."""

    def __init__(self) -> None:
        self.kills = 0
        self.lost_leases = 0


class KitClient(LocalClient):
    """The backend of a kit.

    Args:
        clock: The kit's clock.
        history: Where it is noted what happens.
        faults: What is to happen to the next attempts.
    """

    def __init__(self, clock: VirtualClock, history: History, faults: Faults) -> None:
        super().__init__(clock=clock)
        self.store = self._coordination = NotingStore(self._open_namespace())
        self._history = history
        self._faults = faults
        self._thread = threading.get_ident()
        self.newest_consumer: KitConsumerBackend | None = None

    def _make_consumer(self, namespace: Namespace, queue: str, lease_s: float) -> "KitConsumerBackend":
        made = self.newest_consumer = KitConsumerBackend(
            namespace, queue, lease_s, self._history, self._faults
        )
        return made

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        outcomes = super().publish(queue, messages)
        for message, outcome in zip(messages, outcomes, strict=True):
            self._note_published(queue, message, outcome)
        return outcomes

    def publish_guarded(self, queue: str, message: Message, guard: Guard) -> PublishOutcome | None:
        outcome = super().publish_guarded(queue, message, guard)
        if outcome is not None:
            self._note_published(queue, message, outcome)
        return outcome

    def _note_published(self, queue: str, message: Message, outcome: PublishOutcome) -> None:
        if outcome.status is PublishStatus.ACCEPTED:
            self._history.note_published(queue, message)

    def cancel(
        self, queue: str, ids: Sequence[str], *, result_ttl_s: float = DEFAULT_RESULT_TTL_S
    ) -> list[CancelOutcome]:
        outcomes = super().cancel(queue, ids, result_ttl_s=result_ttl_s)
        for job_id, outcome in zip(ids, outcomes, strict=True):
            if outcome is CancelOutcome.CANCELLED:
                self._history.note(job_id, "cancelled")
        return outcomes

    def result(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        found = super().result(queue, job_id)
        self._note_seen({job_id: found})
        if found is None and timeout_s > 0:
            self.refuse_to_wait(
                f"a result of job {job_id} of queue {queue}, which is {self.status(queue, job_id)}"
            )
            return super().result(queue, job_id, timeout_s=timeout_s)
        return found

    def results(self, queue: str, ids: Sequence[str]) -> dict[str, JobResult]:
        found = super().results(queue, ids)
        self._note_seen(found)
        return found

    def dead_letters(self, queue: str, *, limit: int = 100, offset: int = 0) -> list[DeadLetter]:
        letters = super().dead_letters(queue, limit=limit, offset=offset)
        self._history.seen_dead.update(letter.id for letter in letters)
        return letters

    def _note_seen(self, results: Mapping[str, JobResult | None]) -> None:
        self._history.seen_dead.update(
            id_ for id_, found in results.items() if found is not None and found.status is ResultStatus.FAILED
        )

    def unseen_dead(self) -> list[tuple[str, DeadLetter]]:
        """Return the dead jobs of which no test has learnt, with their queues."""
        letters = (
            (queue.name, explained(letter))
            for queue in self.queues()
            for letter in super(KitClient, self).dead_letters(queue.name, limit=MAX_LISTED)
        )
        return [each for each in letters if each[1].id not in self._history.seen_dead]

    def ended_jobs(self, queue: str) -> "KitEndedJobs":
        return KitEndedJobs(self, queue, self._queue(queue))

    def refuse_to_wait(self, what: str) -> None:
        """Refuse to wait in the thread that made the kit, as that one runs the handlers.

        Raises:
            UsageError: this is that thread.
        """
        if threading.get_ident() == self._thread:
            raise UsageError(
                f"the test waits for {what}, and no handler runs meanwhile: call drain() or advance(seconds) "
                "first"
            )


class KitEndedJobs(LocalEndedJobs):
    """Told of each job that ends, and not waited for where none can.

    Args:
        client: The kit's backend.
        name: The name of the queue.
        queue: The queue.
    """

    def __init__(self, client: KitClient, name: str, queue: LocalQueue) -> None:
        super().__init__(queue)
        self._client = client
        self._name = name

    def wait(self, timeout_s: float) -> Collection[str]:
        if not (ended := super().wait(0.0)) and timeout_s > 0:
            self._client.refuse_to_wait(f"results of queue {self._name}")
            return super().wait(timeout_s)
        return ended


class KitConsumerBackend(LocalConsumerBackend):
    """A consumer backend that notes how attempts end, and dies when it is told to.

    Of one that has died nothing reaches the queues any more: the leases of its jobs end by the clock.
    """

    def __init__(
        self, namespace: Namespace, queue: str, lease_s: float, history: History, faults: Faults
    ) -> None:
        super().__init__(namespace, queue, lease_s)
        self._history = history
        self._faults = faults
        self._jobs: dict[str, str] = {}
        """The ids of the jobs that were taken, by receipt."""
        self.is_dead = False

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        return [] if self.is_dead else self._taken(super().receive(max_jobs, timeout_s))

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        if self._faults.kills and (killed := [each for each in settlements if not isinstance(each, Release)]):
            self._faults.kills -= 1
            self.is_dead = True
            for each in killed:
                self._history.note(self._jobs[each.receipt], "worker killed", "before it settled the job")
        if self.is_dead:
            return Settled([SettleOutcome.LOST] * len(settlements), [])
        settled = super().settle(settlements, take=take)
        for settlement, outcome in zip(settlements, settled.outcomes, strict=True):
            job_id = self._jobs.get(settlement.receipt)
            if job_id is not None and not outcome.keeps_receipt:
                del self._jobs[settlement.receipt]
                self._history.note_settled(job_id, settlement, outcome)
        return Settled(settled.outcomes, self._taken(settled.deliveries))

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        return [SettleOutcome.LOST] * len(receipts) if self.is_dead else super().extend(receipts)

    def close(self) -> None:
        if not self.is_dead:  # a queue that heard of it would give back the jobs at once, and count no crash
            super().close()

    def _taken(self, deliveries: list[Delivery]) -> list[Delivery]:
        for delivery in deliveries:
            self._jobs[delivery.receipt] = delivery.id
        return deliveries
