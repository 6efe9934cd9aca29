"""Queues in a file, shared by the processes of one machine. Needs nothing but the standard library."""

from .client import SQLiteClient
from .consumer import SQLiteConsumerBackend
from .coordination import SQLiteCoordinationStore
from .errors import DiskFull, FileDamaged

__all__ = ["DiskFull", "FileDamaged", "SQLiteClient", "SQLiteConsumerBackend", "SQLiteCoordinationStore"]
