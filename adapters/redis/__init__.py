"""Queues in Redis. Needs the extra ``redis``."""

from .client import RedisClient
from .consumer_backend import RedisConsumerBackend

__all__ = ["RedisClient", "RedisConsumerBackend"]
