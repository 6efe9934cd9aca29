"""Queues in Redis, and results and coordination for brokers that have none. Needs the extra ``redis``."""

from .client import RedisClient
from .consumer import RedisConsumerBackend
from .coordination import RedisCoordinationStore
from .results import RedisResultStore

__all__ = ["RedisClient", "RedisConsumerBackend", "RedisCoordinationStore", "RedisResultStore"]
