"""What a client is told: checked before anything connects. No message shows a password (SEC-3)."""

import os
import ssl as tls
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlencode

from pika import ConnectionParameters, PlainCredentials, SSLOptions
from pydantic import SecretStr

from ...domain.bounds import check_name
from ...domain.errors import InvalidInput, InvalidName
from ..shared.server_settings import (
    Address,
    check_address,
    check_duration,
    check_number,
    check_pairs,
    check_tls,
    given_patience,
    is_loopback,
    netloc,
    parsed_address,
    plain_password,
    split_url,
)

_LONGEST_NAMESPACE = 96
"""RabbitMQ's names have 255 bytes at most, of which the queue's own may take 128 and its parts' 9."""
_LONGEST_HEARTBEAT_S = 3600
_MOST_PREFETCH = 65535
"""What AMQP has room for."""
_PORT, _TLS_PORT = 5672, 5671
_URL = "amqp://[user[:password]@]host[:port][,host[:port]…][/vhost][?namespace=…&prefetch=…&heartbeat_s=…]"
_QUERY = ("namespace", "prefetch", "heartbeat_s", "retry_timeout_s", "ssl_ca_certs")


class Settings(NamedTuple):
    """Everything that a connection is made with."""

    addresses: list[Address]
    username: str
    password: SecretStr
    vhost: str
    ssl: bool
    ca_certs: str | None
    heartbeat_s: int
    retry_timeout_s: float

    @property
    def shown(self) -> str:
        """Where the servers are, for messages."""
        return ", ".join(f"{host}:{port}" for host, port in self.addresses)

    @property
    def is_exposed(self) -> bool:
        """Whether others than this machine can read what is sent."""
        return not self.ssl and not all(is_loopback(host) for host, _ in self.addresses)

    def url(
        self, namespace: str, prefetch: int | None, stores: Mapping[str, str], *, with_passwords: bool
    ) -> str:
        """Return the URL that :func:`parsed_url` reads as these settings.

        Args:
            namespace: The client's.
            prefetch: Likewise.
            stores: The URLs of its stores, by the word that names each.
            with_passwords: Whether the URL contains the password.
        """
        query: dict[str, str | int] = {
            "namespace": namespace,
            "prefetch": "adaptive" if prefetch is None else prefetch,
            "heartbeat_s": self.heartbeat_s,
        }
        if self.ca_certs is not None:
            query["ssl_ca_certs"] = self.ca_certs
        query |= stores
        password = self.password.get_secret_value() if with_passwords else None
        where = netloc(self.username, password, self.addresses)
        vhost = "" if self.vhost == "/" else f"/{quote(self.vhost, safe='')}"
        return f"amqp{'s' if self.ssl else ''}://{where}{vhost}?{urlencode(query, quote_via=quote, safe='')}"

    def parameters(self) -> list[ConnectionParameters]:
        """The same for the driver, one for each server."""
        timeout_s = max(0.5, self.retry_timeout_s / 2)  # so that there is time to try another
        context = tls.create_default_context(cafile=self.ca_certs) if self.ssl else None
        return [
            ConnectionParameters(
                host=host,
                port=port,
                virtual_host=self.vhost,
                credentials=PlainCredentials(
                    self.username, self.password.get_secret_value(), erase_on_connect=False
                ),
                heartbeat=self.heartbeat_s,
                socket_timeout=timeout_s,
                stack_timeout=timeout_s,
                ssl_options=None if context is None else SSLOptions(context, host),
                client_properties={"connection_name": f"mindtrace-jobs {os.getpid()}"},
            )
            for host, port in self.addresses
        ]


def check_settings(settings: Settings) -> Settings:
    """Return settings that can work.

    Raises:
        InvalidInput: one can't; the message says which, and what it must be.
    """
    for host, port in settings.addresses:
        check_address("host", host, port)
    _check_text("username", settings.username)
    _check_text("vhost", settings.vhost)
    check_tls(settings.ssl, settings.ca_certs, url="an amqps:// URL")
    check_number("heartbeat_s", settings.heartbeat_s, 1, _LONGEST_HEARTBEAT_S)
    check_duration("retry_timeout_s", settings.retry_timeout_s)
    return settings


def checked_addresses(host: str, port: int, hosts: Sequence[Address]) -> list[Address]:
    """The servers to try, in turn.

    Raises:
        InvalidInput: ``hosts`` isn't a list of pairs.
    """
    check_pairs("hosts", hosts)
    return [(name, number) for name, number in hosts] or [(host, port)]


def secret(password: object) -> SecretStr:
    """The password, wrapped so that nothing shows it.

    Raises:
        InvalidInput: it is something else.
    """
    if (plain := plain_password("password", password)) is None:
        raise InvalidInput("password: must be a text or a SecretStr, not NoneType")
    return SecretStr(plain)


def checked_namespace(namespace: str) -> str:
    """A namespace that leaves room for the queues' names.

    Raises:
        InvalidName: it breaks the rule for names, or is too long.
    """
    check_name("namespace", namespace)
    if len(namespace) > _LONGEST_NAMESPACE:
        raise InvalidName(
            f"namespace {namespace!r}: RabbitMQ leaves room for {_LONGEST_NAMESPACE} characters"
        )
    return namespace


def checked_prefetch(prefetch: int | None) -> int | None:
    """How many jobs to take at once, or None.

    Raises:
        InvalidInput: it is neither None nor 1 to 65535.
    """
    return None if prefetch is None else check_number("prefetch", prefetch, 1, _MOST_PREFETCH)


def parsed_url(url: str) -> dict[str, Any]:
    """A client's settings, from ``amqp://…`` or ``amqps://…``.

    Raises:
        InvalidInput: the URL can't be understood; the message doesn't repeat it.
    """
    encrypted = url.lower().startswith("amqps:")
    try:
        parts = split_url(url)
        addresses = [parsed_address(each, _TLS_PORT if encrypted else _PORT) for each in parts.addresses]
        query = {
            name: values[-1]
            for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()
        }
        asked = query.get("prefetch", "1")
        prefetch = None if asked == "adaptive" else int(asked)
        heartbeat_s = int(query.get("heartbeat_s", "15"))
    except ValueError:  # whose message may show the password
        raise InvalidInput(f"a RabbitMQ URL is {_URL}") from None
    patience = given_patience(query)
    if unknown := sorted(query.keys() - set(_QUERY)):
        raise InvalidInput(
            f"a RabbitMQ URL takes no {', '.join(unknown)}; it takes {', '.join(_QUERY)}; "
            "in Orchestrator(url) also results and store"
        )
    return {
        "username": parts.username or "guest",
        "password": parts.password or "guest",
        "vhost": unquote(parts.path.removeprefix("/")) or "/",
        "namespace": query.get("namespace", "default"),
        "hosts": addresses,
        "ssl": encrypted,
        "ssl_ca_certs": query.get("ssl_ca_certs"),
        "prefetch": prefetch,
        "heartbeat_s": heartbeat_s,
        **patience,
    }


def _check_text(what: str, text: object) -> None:
    if not isinstance(text, str) or not 0 < len(text.encode(errors="replace")) <= 255:
        raise InvalidInput(f"{what} {text!r:.80}: must be a text of 1 to 255 bytes")
