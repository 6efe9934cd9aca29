"""Queues in Redis, and results for brokers that keep none. Needs the extra ``redis``."""

from .client import RedisClient
from .consumer import RedisConsumerBackend
from .results import RedisResultStore

__all__ = ["RedisClient", "RedisConsumerBackend", "RedisResultStore"]
