"""Queues in memory: the embedded default, and the measure that the other adapters are held to."""

from .client import LocalClient
from .clock import Clock, ManualClock, SystemClock
from .consumer import LocalConsumerBackend

__all__ = ["Clock", "LocalClient", "LocalConsumerBackend", "ManualClock", "SystemClock"]
