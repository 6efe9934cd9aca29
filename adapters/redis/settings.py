"""Where a Redis server is and whom to connect as: checked before anything connects.

No message shows a password (SEC-3).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

from ...domain.errors import InvalidInput, UnsupportedCapability
from ...ports import Durability
from ..shared.server_settings import (
    Password,
    Patience,
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
from .transport import RetryingConnection, make_connections, make_sentinel

DURABILITIES = (Durability.NONE, Durability.SNAPSHOT, Durability.EVERY_SECOND, Durability.FSYNC)
"""What a server can be set up to survive, the least first. Its replication is asynchronous."""
_MAX_DB = 65_535


@dataclass(frozen=True, slots=True, repr=False)
class ServerSettings:
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
        check_number("db", self.db, 0, _MAX_DB)
        _check_credentials(self.username, self.password)
        check_tls(self.ssl, self.ssl_ca_certs, url="a rediss:// URL")
        _check_sentinels(self.sentinels, self.sentinel_service, self.sentinel_password)

    def connect(
        self, owner: str, client_name: str, *, sweep_s: float, retry_timeout_s: float, logger: logging.Logger
    ) -> RetryingConnection:
        """Make the connection, which is opened when it is first used.

        Args:
            owner: What errors call the object that it belongs to.
            client_name: What the server is to call it.
            sweep_s: The longest, in seconds, that one wait may last.
            retry_timeout_s: How many seconds a call tries to reach the server before it fails.
            logger: Logs outages, and a connection that isn't encrypted.

        Raises:
            InvalidInput: a duration is none.
        """
        check_duration("sweep_s", sweep_s)
        check_duration("retry_timeout_s", retry_timeout_s)
        # Half of it, so that a connection that fell silent is given up in time to try another.
        timeout_s = max(retry_timeout_s / 2, 0.5)
        settings = self._settings(timeout_s) | {"client_name": client_name}
        self._warn_of_plaintext(logger)
        return RetryingConnection(
            self._address,
            make_connections(socket_timeout=timeout_s, **settings),
            make_connections(socket_timeout=sweep_s + timeout_s, **settings),
            owner=owner,
            retry_timeout_s=retry_timeout_s,
            logger=logger,
            is_local=self._is_local,
        )

    def url(self, namespace: str, *, with_passwords: bool) -> str:
        """Return the URL that :func:`parsed_url` reads as these settings and ``namespace``.

        Raises:
            UnsupportedCapability: Sentinels over TLS have none.
        """
        query = {"namespace": namespace}
        if self.ssl_ca_certs is not None:
            query["ssl_ca_certs"] = self.ssl_ca_certs
        sentinel_password = plain_password("sentinel_password", self.sentinel_password)
        if with_passwords and sentinel_password is not None:
            query["sentinel_password"] = sentinel_password
        password = plain_password("password", self.password) if with_passwords else None
        where = netloc(self.username, password, self.sentinels or [(self.host, self.port)])
        if not self.sentinels:
            return f"redis{'s' if self.ssl else ''}://{where}/{self.db}?{urlencode(query)}"
        if self.ssl:
            raise UnsupportedCapability("no URL names Sentinels over TLS: make the client by its arguments")
        service = quote(self.sentinel_service, safe="")
        return f"redis+sentinel://{where}/{service}/{self.db}?{urlencode(query)}"

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

    @property
    def _is_local(self) -> bool:
        hosts = [host for host, _ in self.sentinels] or [self.host]
        return all(map(is_loopback, hosts))

    def _warn_of_plaintext(self, logger: logging.Logger) -> None:
        if not self.ssl and not self._is_local:
            logger.warning(
                "the connection to Redis at %s isn't encrypted: anyone on the way can change jobs, "
                "and read the password; use ssl=True or a rediss:// URL",
                self._address,
            )


class UrlSettings(Patience):
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
    scheme = url.partition("://")[0].lower()
    by_sentinel = scheme == "redis+sentinel"
    try:
        parts = split_url(url)
        path = parts.path.strip("/").split("/")
        service = unquote(path.pop(0)) if by_sentinel else ""
        (database,) = path or [""]
        db = int(database or 0)
        addresses = [parsed_address(each, 26379 if by_sentinel else 6379) for each in parts.addresses]
        if by_sentinel == (service == "") or (len(addresses) > 1 and not by_sentinel):
            raise ValueError
    except ValueError:  # whose message may show the password
        raise InvalidInput(
            "a Redis URL is redis://[user[:password]@]host[:port][/db] or "
            "redis+sentinel://[user[:password]@]host[:port],host[:port]/service[/db], where port and db are "
            "numbers; in a user or password, write / as %2F, : as %3A and @ as %40"
        ) from None
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    namespace, ca_certs = query.pop("namespace", "default"), query.pop("ssl_ca_certs", None)
    sentinel_password = query.pop("sentinel_password", None) if by_sentinel else None
    patience = given_patience(query)
    if query:
        raise InvalidInput(
            f"a Redis URL takes no {', '.join(sorted(query))}; it takes namespace, ssl_ca_certs, "
            "retry_timeout_s and, for Sentinels, sentinel_password"
        )
    host, port = addresses[0]
    return UrlSettings(
        host=host,
        port=port,
        db=db,
        username=parts.username or None,
        password=parts.password or None,
        namespace=namespace,
        ssl=scheme == "rediss",
        ssl_ca_certs=ca_certs,
        sentinels=addresses if by_sentinel else (),
        sentinel_service=service or "mymaster",
        sentinel_password=sentinel_password,
        **patience,
    )


def _check_sentinels(addresses: Sequence[tuple[str, int]], service: object, password: object) -> None:
    """Demand pairs of host and port, and the name of what they watch; without any, no password for them.

    Raises:
        InvalidInput: it is something else.
    """
    check_pairs("sentinels", addresses)
    for host, port in addresses:
        check_address("sentinel", host, port)
    if addresses and (not isinstance(service, str) or not service):
        raise InvalidInput(f"sentinel_service {service!r:.80}: say what the Sentinels call the server")
    if password is not None and not addresses:
        raise InvalidInput("sentinel_password is of use only with sentinels")
    plain_password("sentinel_password", password)


def _check_credentials(username: object, password: object) -> None:
    """Demand texts, and a password for a user.

    Raises:
        InvalidInput: one is missing, or something else.
    """
    if username is not None and not isinstance(username, str):
        raise InvalidInput(f"username: must be a text, not {type(username).__name__}")
    if username and password is None:
        raise InvalidInput(f"username {username!r:.80}: needs a password")
    plain_password("password", password)
