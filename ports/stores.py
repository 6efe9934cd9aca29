"""What the ports of stores have in common: a backend may borrow them of another system."""

from abc import abstractmethod

from ..domain.errors import UnsupportedCapability
from .base_classes import Closeable
from .migrations import Migrates


class Store(Migrates, Closeable):
    """A store that another system's backend can be given."""

    def make_url(self, *, with_passwords: bool = False) -> str:
        """Return the URL of this store for another process, as :meth:`OrchestratorBackend.make_url` does.

        Raises:
            UnsupportedCapability: no URL leads there.
        """
        raise UnsupportedCapability(
            f"{type(self).__name__} has no URL: make the store in the other process, with the same settings"
        )

    @abstractmethod
    def close(self) -> None:
        """Close the store. Closing it again does nothing."""
