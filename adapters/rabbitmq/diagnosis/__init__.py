"""Whether a RabbitMQ that can be reached keeps jobs as promised."""

from .checks import diagnose

__all__ = ["diagnose"]
