"""The one place that touches redis-py: connections to a server, what is sent and read, retries, errors.

Each module uses those before it: commands; channel, evaluate; connections,
on_connect; and retrying_connection.
"""

from .commands import Argument, as_text
from .connections import make_connections, make_sentinel
from .retrying_connection import Call, RetryingConnection

__all__ = ["Argument", "Call", "RetryingConnection", "as_text", "make_connections", "make_sentinel"]
