"""What runs the handlers of many jobs at once."""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager

from ...ports import Delivery


class HandlerRunner(AbstractContextManager[None]):
    """Runs jobs in flight at a number of places, as long as the context lasts.

    As it ends, it starts no further job, and abandons what still runs: its consumer has released it.
    """

    @abstractmethod
    def tell_to_end(self) -> None:
        """Have no further job start, as the end of the context does; this waits for nothing."""

    @abstractmethod
    def wake(self) -> None:
        """Start queued jobs at the places that are free."""

    @abstractmethod
    def run(self, delivery: Delivery) -> None:
        """Run a job that the caller has started."""

    def call(self, function: Callable[[], object]) -> None:
        """Call a function, and wait for its end; an ``async def`` runs on the event loop of the handlers."""
        function()

    def cancel(self, receipts: set[str]) -> None:
        """Have the handlers of these jobs end, if they can be. Any thread calls this."""

    def check(self) -> None:
        """Warn of handlers that do what they shouldn't. Any thread calls this, about once a second."""
