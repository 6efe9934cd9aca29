"""Faults of looking at the first ready job."""

from collections.abc import Callable

from ...ports import Capabilities, Message
from .fault_registry import breaks
from .pass_through import BrokenBackend, PassThrough


def shows_the_first(capabilities: Capabilities) -> bool:
    """Only what is shown can be wrong."""
    return capabilities.first_ready


@breaks("CNT-2", where=shows_the_first)
class ShowsNoJob(PassThrough):
    """A look finds no job, whatever is ready."""

    def first_ready(self, client: BrokenBackend, queue: str) -> bytes | None:
        return None


@breaks("CNT-2", where=shows_the_first)
class LooksByTaking(PassThrough):
    """The job that is shown is taken, and comes back only once its lease is over."""

    def first_ready(self, client: BrokenBackend, queue: str) -> bytes | None:
        deliveries = client.inner.open_consumer(queue).receive(1, 0.0)
        return deliveries[0].body if deliveries else None


@breaks("CNT-2", where=shows_the_first)
class ShowsWhatWasPublishedFirst(PassThrough):
    """The first job that ever came is shown for good, also once it is in flight, done or dead."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._first: bytes | None = None

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        self._first = self._first or message.body
        return message

    def first_ready(self, client: BrokenBackend, queue: str) -> bytes | None:
        return self._first


@breaks("CNT-2", where=shows_the_first)
class ShowsOnlyWhatWasSwept(PassThrough):
    """What came to its time isn't shown until a consumer asks for jobs."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._is_swept = True

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        self._is_swept = message.delay_s == 0
        return message

    def first_ready(self, client: BrokenBackend, queue: str) -> bytes | None:
        return client.inner.first_ready(queue) if self._is_swept else None
