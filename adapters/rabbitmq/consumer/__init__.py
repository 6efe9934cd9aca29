"""A consumer's side of a queue in RabbitMQ."""

from .backend import RabbitMQConsumerBackend

__all__ = ["RabbitMQConsumerBackend"]
