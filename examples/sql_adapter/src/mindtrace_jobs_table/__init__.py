"""A backend for mindtrace-jobs: queues in tables of a database, here of SQLite."""

from .client import TableClient
from .consumer_backend import TableConsumerBackend

__all__ = ["TableClient", "TableConsumerBackend"]
