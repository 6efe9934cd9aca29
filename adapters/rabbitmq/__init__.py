"""Queues in RabbitMQ. Needs the extra ``rabbitmq``."""

from .client import RabbitMQClient
from .consumer import RabbitMQConsumerBackend

__all__ = ["RabbitMQClient", "RabbitMQConsumerBackend"]
