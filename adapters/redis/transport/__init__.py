"""The one place that touches the inside of redis-py: what is sent and read over its connections."""

from .channel import Argument, Command, Execute
from .connections import ConnectionBroke, Connections, make_connections, make_sentinel

__all__ = [
    "Argument",
    "Command",
    "ConnectionBroke",
    "Connections",
    "Execute",
    "make_connections",
    "make_sentinel",
]
