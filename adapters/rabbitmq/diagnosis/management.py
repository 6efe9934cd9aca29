"""The HTTP API of RabbitMQ's management plugin, as far as policies are concerned."""

import json
import re
from base64 import b64encode
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlencode

from pika import ConnectionParameters

from .policies import Policy

_PORTS_APART = 10_000
"""The plugin listens on 15672 beside 5672, and on 15671 beside 5671."""
_LAST_PORT = 65_535
_TIMEOUT_S = 2.0
_LONGEST = 4 * 1024 * 1024
"""How much of an answer is read, in bytes."""
_MOST_QUEUES = 500


class NoAnswer(Exception):
    """The plugin isn't there, or doesn't tell this user; the message says which."""


def policies_of(server: ConnectionParameters) -> list[Policy]:
    """Return all policies of the virtual host, also those of operators.

    Args:
        server: How AMQP reaches it; the same host, user, password and certificates serve here.

    Raises:
        NoAnswer: they can't be read.
    """
    try:
        return [
            Policy(
                one["name"],
                path == "operator-policies",
                one["pattern"],
                one["apply-to"],
                one["priority"],
                one["definition"],
            )
            for path in ("policies", "operator-policies")
            for one in _get(server, path)
        ]
    except (KeyError, TypeError) as error:
        raise NoAnswer(f"its answer isn't RabbitMQ's: {error!r}") from error


def queues_of(server: ConnectionParameters, prefix: str) -> dict[str, str]:
    """Return the types of the queues whose names begin with ``prefix``, by name; of many, some.

    Raises:
        NoAnswer: they can't be read.
    """
    query = {
        "name": f"^{re.escape(prefix)}",
        "use_regex": "true",
        "page": 1,
        "page_size": _MOST_QUEUES,
        "columns": "name,type",
    }
    try:
        return {one["name"]: one["type"] for one in _get(server, "queues", query)["items"]}
    except (KeyError, TypeError) as error:
        raise NoAnswer(f"its answer isn't RabbitMQ's: {error!r}") from error


def _get(server: ConnectionParameters, what: str, query: dict[str, Any] | None = None) -> Any:
    path = f"/api/{what}/{quote(server.virtual_host, safe='')}?{urlencode(query or {})}"
    credentials = server.credentials
    who = b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
    connection = _connection(server)
    try:
        connection.request("GET", path, headers={"Authorization": f"Basic {who}"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise NoAnswer(f"it answers with status {answer.status}")
        return json.loads(answer.read(_LONGEST))
    except (OSError, HTTPException, ValueError, RecursionError) as error:
        raise NoAnswer(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()


def _connection(server: ConnectionParameters) -> HTTPConnection:
    port, tls = server.port + _PORTS_APART, server.ssl_options
    if port > _LAST_PORT:
        raise NoAnswer(f"there is no port {port}")
    if tls is None:
        return HTTPConnection(server.host, port, timeout=_TIMEOUT_S)
    return HTTPSConnection(server.host, port, timeout=_TIMEOUT_S, context=tls.context)
