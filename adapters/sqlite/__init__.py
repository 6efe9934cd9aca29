"""Queues in a file, shared by the processes of one machine. Needs nothing but the standard library."""

from .client import SQLiteClient
from .consumer_backend import SQLiteConsumerBackend
from .refusals import DiskFull, FileDamaged

__all__ = ["DiskFull", "FileDamaged", "SQLiteClient", "SQLiteConsumerBackend"]
