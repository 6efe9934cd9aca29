"""Queues in Redis, and results and coordination for brokers that have none. Needs the extra ``redis``."""

from .client import RedisClient
from .consumer import RedisConsumerBackend
from .coordination import RedisCoordinationStore
from .errors import QueueDamaged
from .results import RedisResultStore

__all__ = [
    "QueueDamaged",
    "RedisClient",
    "RedisConsumerBackend",
    "RedisCoordinationStore",
    "RedisResultStore",
]
