"""Where a Redis server is and whom to connect as: checked, and put to use."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict
from urllib.parse import parse_qs, unquote, urlsplit

from ...domain.errors import InvalidInput
from ...domain.limits import check_int
from ..shared.server_settings import (
    check_address,
    check_duration,
    check_tls,
    is_loopback,
    parsed_address,
    plain_password,
)
from .connections import make_connections, make_sentinel
from .link import Link
from .settings import Password, check_credentials, check_sentinels

_MAX_DB = 65_535


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Server:
    """One server, by its address or by the Sentinels that know it; the fields as in :class:`RedisClient`.

    Raises:
        InvalidInput: a setting is out of range or of the wrong type; the message says which.
    """

    host: str
    port: int
    db: int
    username: str | None
    password: Password
    ssl: bool
    ssl_ca_certs: str | None
    sentinels: Sequence[tuple[str, int]]
    sentinel_service: str
    sentinel_password: Password

    def __post_init__(self) -> None:
        check_address("host", self.host, self.port)
        check_int("db", self.db, 0, _MAX_DB)
        check_credentials(self.username, self.password)
        check_tls(self.ssl, self.ssl_ca_certs, url="a rediss:// URL")
        check_sentinels(self.sentinels, self.sentinel_service, self.sentinel_password)

    def link(
        self, owner: str, client_name: str, *, sweep_s: float, retry_timeout_s: float, logger: logging.Logger
    ) -> Link:
        """Make the way there, which connects when it is first used.

        Args:
            owner: What errors call the object whose link this is.
            client_name: What the server is to call its connections.
            sweep_s: The longest, in seconds, that one wait may last.
            retry_timeout_s: How many seconds a call tries to reach the server before it fails.
            logger: Where to tell of outages, and of a connection that isn't encrypted.

        Raises:
            InvalidInput: a duration is none.
        """
        check_duration("sweep_s", sweep_s)
        check_duration("retry_timeout_s", retry_timeout_s)
        # Half of it, so that a connection that fell silent is given up in time to try another.
        timeout_s = max(retry_timeout_s / 2, 0.5)
        settings = self._settings(timeout_s) | {"client_name": client_name}
        self._warn_of_plaintext(logger)
        return Link(
            self._address,
            make_connections(socket_timeout=timeout_s, **settings),
            make_connections(socket_timeout=sweep_s + timeout_s, **settings),
            owner=owner,
            retry_timeout_s=retry_timeout_s,
            logger=logger,
        )

    @property
    def _address(self) -> str:
        return f"Sentinel's {self.sentinel_service!r}" if self.sentinels else f"{self.host}:{self.port}"

    def _settings(self, timeout_s: float) -> dict[str, Any]:
        transport: dict[str, Any] = {"socket_connect_timeout": min(timeout_s, 5.0)}
        if self.ssl:
            transport |= {"ssl": True, "ssl_check_hostname": True, "ssl_ca_certs": self.ssl_ca_certs}
        who = {"username": self.username, "password": plain_password("password", self.password)}
        settings = transport | who | {"db": self.db}
        if not self.sentinels:
            return settings | {"host": self.host, "port": self.port}
        sentinel = make_sentinel(
            self.sentinels,
            password=plain_password("sentinel_password", self.sentinel_password),
            socket_timeout=timeout_s,
            **transport,
        )
        return settings | {"service": self.sentinel_service, "sentinel": sentinel}

    def _warn_of_plaintext(self, logger: logging.Logger) -> None:
        hosts = [host for host, _ in self.sentinels] or [self.host]
        if not self.ssl and not all(map(is_loopback, hosts)):
            logger.warning(
                "the connection to Redis at %s isn't encrypted: anyone on the way can change jobs, "
                "and read the password; use ssl=True or a rediss:// URL",
                self._address,
            )


class UrlSettings(TypedDict):
    """What a URL says: settings of :class:`RedisClient`, under their names there."""

    host: str
    port: int
    db: int
    username: str | None
    password: str | None
    namespace: str
    ssl: bool
    ssl_ca_certs: str | None
    sentinels: Sequence[tuple[str, int]]
    sentinel_service: str
    sentinel_password: str | None


def parsed_url(url: str) -> UrlSettings:
    """Read a URL, of the forms that :meth:`RedisClient.from_url` takes.

    Raises:
        InvalidInput: it can't be understood.
    """
    scheme, _, rest = url.partition("://")
    by_sentinel = scheme == "redis+sentinel"
    try:
        parts = urlsplit(f"//{rest}")
        who, _, where = parts.netloc.rpartition("@")
        username, _, password = map(unquote, who.partition(":"))
        path = parts.path.strip("/").split("/")
        service = unquote(path.pop(0)) if by_sentinel else ""
        (database,) = path or [""]
        db = int(database or 0)
        addresses = [parsed_address(each, 26379 if by_sentinel else 6379) for each in where.split(",")]
        if by_sentinel == (service == "") or (len(addresses) > 1 and not by_sentinel):
            raise ValueError
    except ValueError:  # whose message may show the password
        raise InvalidInput(
            "a Redis URL is redis://[user[:password]@]host[:port][/db] or "
            "redis+sentinel://[user[:password]@]host[:port],host[:port]/service[/db]"
        ) from None
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    namespace, ca_certs = query.pop("namespace", "default"), query.pop("ssl_ca_certs", None)
    sentinel_password = query.pop("sentinel_password", None) if by_sentinel else None
    if query:
        raise InvalidInput(
            f"a Redis URL takes no {', '.join(sorted(query))}; it takes namespace, ssl_ca_certs and, "
            "for Sentinels, sentinel_password"
        )
    host, port = addresses[0]
    return UrlSettings(
        host=host,
        port=port,
        db=db,
        username=username or None,
        password=password or None,
        namespace=namespace,
        ssl=scheme == "rediss",
        ssl_ca_certs=ca_certs,
        sentinels=addresses if by_sentinel else (),
        sentinel_service=service or "mymaster",
        sentinel_password=sentinel_password,
    )
