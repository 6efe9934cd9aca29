"""Faults of what is left of a job to the next one of its id."""

from collections.abc import Callable, Sequence

from ...ports import CancelOutcome, Delivery, Message
from .cancelling import breaks_cancel
from .fault_bases import RecordsDeliveries
from .fault_registry import breaks
from .order import prioritizes
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


@breaks_cancel("CAN-1")
class AnIdKeepsTheCrashesOfACancelledJob(RecordsDeliveries):
    """Crashes are counted by id, and a cancel forgets to remove the count."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._left: dict[str, int] = {}

    def cancel(
        self, client: BrokenBackend, queue: str, ids: Sequence[str], result_ttl_s: float
    ) -> list[CancelOutcome]:
        for delivery in self.delivered.values():
            if delivery.id in ids and delivery.crashes:
                self._left[delivery.id] = delivery.crashes
        return super().cancel(client, queue, ids, result_ttl_s)

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        return [
            each._replace(crashes=each.crashes + self._left.get(each.id, 0))
            for each in super().incoming(consumer, deliveries)
        ]


@breaks("ADM-2", where=prioritizes)
class AnIdKeepsThePriorityOfAPurgedJob(PassThrough):
    """The priorities of jobs that crashed are kept by id, and a purge leaves them."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._priorities: dict[str, int] = {}
        self._crashed: dict[str, set[str]] = {}
        self._left: set[str] = set()

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        if message.id in self._left:
            return message._replace(priority=self._priorities[message.id])
        self._priorities[message.id] = message.priority
        return message

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        self._crashed.setdefault(consumer.queue, set()).update(each.id for each in deliveries if each.crashes)
        return deliveries

    def purge(self, client: BrokenBackend, queue: str) -> int:
        self._left |= self._crashed.get(queue, set())
        return super().purge(client, queue)
