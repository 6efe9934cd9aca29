"""Queues in a PostgreSQL database, version 14 or newer."""

from .client import PostgreSQLClient
from .consumer import PostgreSQLConsumerBackend
from .coordination import PostgreSQLCoordinationStore
from .errors import DiskFull
from .result_store import PostgreSQLResultStore

__all__ = [
    "DiskFull",
    "PostgreSQLClient",
    "PostgreSQLConsumerBackend",
    "PostgreSQLCoordinationStore",
    "PostgreSQLResultStore",
]
