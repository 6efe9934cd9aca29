"""Queues in a PostgreSQL database, version 14 or newer."""

from .client import PostgreSQLClient
from .consumer import PostgreSQLConsumerBackend

__all__ = ["PostgreSQLClient", "PostgreSQLConsumerBackend"]
