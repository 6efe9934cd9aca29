"""A backend for mindtrace-jobs: queues in a spool folder, one file a job, moved by atomic renames."""

from .client import SpoolClient
from .consumer_backend import SpoolConsumerBackend

__all__ = ["SpoolClient", "SpoolConsumerBackend"]
