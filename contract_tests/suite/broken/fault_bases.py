"""Base classes that several faults share."""

from collections.abc import Callable

from ...ports import Delivery, Message
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough

_COPY = ".copy"


class RecordsDeliveries(PassThrough):
    """Records what was delivered, by its receipt."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.delivered: dict[str, Delivery] = {}

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        self.delivered.update((delivery.receipt, delivery) for delivery in deliveries)
        return deliveries


class DuplicatesJobs(RecordsDeliveries):
    """Can put a job into the queue a second time, and delivers both under the one id."""

    def put_copy(self, client: BrokenBackend, queue: str, message: Message) -> None:
        """Publish a copy, which the broker takes for another job."""
        client.inner.publish(queue, [message._replace(id=message.id + _COPY)])

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        named = [delivery._replace(id=delivery.id.removesuffix(_COPY)) for delivery in deliveries]
        return super().incoming(consumer, named)
