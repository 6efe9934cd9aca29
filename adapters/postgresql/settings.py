"""Where a PostgreSQL server is and whom to connect as: checked before anything connects.

No message shows a password (SEC-3).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

from ...domain.bounds import check_name
from ...domain.errors import InvalidInput, InvalidName
from ...ports import Durability
from ..shared.server_settings import (
    Password,
    Patience,
    check_address,
    given_patience,
    is_loopback,
    netloc,
    parsed_address,
    plain_password,
    split_url,
)

DEFAULT_NAMESPACE = "mindtrace_jobs"
_LONGEST_SCHEMA = 63
_NOT_OURS = ("public", "information_schema")
_LIBPQ = frozenset(
    (
        "application_name",
        "channel_binding",
        "gssencmode",
        "hostaddr",
        "options",
        "passfile",
        "require_auth",
        "service",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslrootcert",
        "target_session_attrs",
        "load_balance_hosts",
    )
)
"""What of libpq's settings may be given besides those that have an argument."""
_PLAINTEXT = ("disable", "allow", "prefer")
DURABILITIES = (Durability.NONE, Durability.EVERY_SECOND, Durability.FSYNC, Durability.REPLICATED)
"""What a server can be set up to survive, the least first."""


@dataclass(frozen=True, slots=True, repr=False)
class ServerSettings:
    """One server, or one of several; the fields as in :class:`PostgreSQLClient`.

    Raises:
        InvalidInput: a setting is out of range or of the wrong type; the message says which.
    """

    hosts: tuple[tuple[str, int], ...]
    database: str
    username: str | None
    password: Password
    libpq: Mapping[str, str] = field(default_factory=dict)
    prepared: bool = True

    def __post_init__(self) -> None:
        for host, port in self.hosts:
            if not str(host).startswith("/"):  # a folder of sockets
                check_address("host", host, port)
        _check_text("database", self.database)
        if self.username is not None:
            _check_text("username", self.username)
        plain_password("password", self.password)
        if not isinstance(self.prepared, bool):
            raise InvalidInput(f"prepared {self.prepared!r:.80}: must be True or False")
        if unknown := sorted(set(self.libpq) - _LIBPQ):
            raise InvalidInput(f"libpq has no setting {', '.join(unknown)} that may be given here")

    def of(self, host: tuple[str, int]) -> "ServerSettings":
        """Return the settings that lead to this host alone, be it primary or standby."""
        libpq = {name: value for name, value in self.libpq.items() if name != "target_session_attrs"}
        return replace(self, hosts=(host,), libpq=libpq)

    @property
    def parameters(self) -> dict[str, Any]:
        """What libpq is to be told."""
        found: dict[str, Any] = {
            "host": ",".join(host for host, _ in self.hosts),
            "port": ",".join(str(port) for _, port in self.hosts),
            "dbname": self.database,
            "user": self.username,
            "password": plain_password("password", self.password),
            "application_name": "mindtrace-jobs",
            "client_encoding": "utf8",
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            **self.libpq,
        }
        return {name: value for name, value in found.items() if value is not None}

    @property
    def address(self) -> str:
        """What to call the server in messages."""
        where = ",".join(host if host.startswith("/") else f"{host}:{port}" for host, port in self.hosts)
        return f"{where}/{self.database}"

    @property
    def is_local(self) -> bool:
        """Whether the server should be on this machine."""
        return all(host.startswith("/") or is_loopback(host) for host, _ in self.hosts)

    def warn_of_plaintext(self, logger: logging.Logger) -> None:
        """Log a warning if the connection may not be encrypted."""
        if not self.is_local and self.libpq.get("sslmode", "prefer") in _PLAINTEXT:
            logger.warning(
                "the connection to PostgreSQL at %s may not be encrypted: anyone on the way can change jobs; "
                "use sslmode=verify-full",
                self.address,
            )

    def url(self, namespace: str, durability: Durability | None, *, with_passwords: bool) -> str:
        """Return the URL that :func:`parsed_url` reads as these settings."""
        password = plain_password("password", self.password) if with_passwords else None
        query = {"namespace": namespace} | ({} if durability is None else {"durability": str(durability)})
        query |= ({} if self.prepared else {"prepared": "false"}) | dict(self.libpq)
        hosts = [(quote(host, safe="") if host.startswith("/") else host, port) for host, port in self.hosts]
        where = netloc(self.username, password, hosts)
        return f"postgresql://{where}/{quote(self.database, safe='')}?{urlencode(query)}"


class UrlSettings(Patience):
    """What a URL says: settings of :class:`PostgreSQLClient`, under their names there."""

    host: str
    port: int
    database: str
    username: str | None
    password: str | None
    namespace: str
    durability: Durability | str
    more_hosts: tuple[tuple[str, int], ...]
    libpq: Mapping[str, str]
    prepared: bool


def parsed_url(url: str) -> UrlSettings:
    """Read ``postgresql://[user[:password]@]host[:port][,host[:port]…]/database[?…]``.

    Raises:
        InvalidInput: it can't be understood.
    """
    try:
        parts = split_url(url)
        first, *more = [parsed_host(each) for each in parts.addresses]
        path = parts.path.strip("/")
        if not path or "/" in path:
            raise ValueError
    except ValueError:  # whose message may show the password
        raise InvalidInput(
            "a PostgreSQL URL is postgresql://[user[:password]@]host[:port][,host[:port]]/database"
        ) from None
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    namespace = query.pop("namespace", None) or query.pop("schema", None) or DEFAULT_NAMESPACE
    durability = query.pop("durability", Durability.FSYNC)
    prepared = query.pop("prepared", "true")
    if prepared not in ("true", "false"):
        raise InvalidInput(f"prepared {prepared!r:.80}: must be true or false")
    patience = given_patience(query)
    if unknown := sorted(set(query) - _LIBPQ):
        raise InvalidInput(
            f"a PostgreSQL URL takes no {', '.join(unknown)}; it takes namespace (or schema), durability, "
            "prepared, retry_timeout_s, and of libpq's settings sslmode, sslrootcert, "
            "target_session_attrs and such"
        )
    return UrlSettings(
        host=first[0],
        port=first[1],
        database=unquote(path),
        username=parts.username or None,
        password=parts.password or None,
        namespace=namespace,
        durability=durability,
        more_hosts=tuple(more),
        libpq=query,
        prepared=prepared == "true",
        **patience,
    )


def parsed_host(text: str) -> tuple[str, int]:
    """Read ``host[:port]``; a host that begins with a slash, written ``%2F``, is a folder of sockets."""
    host, port = parsed_address(text, 5432)
    return (unquote(text.partition(":")[0]), port) if text.lower().startswith("%2f") else (host, port)


def check_namespace(namespace: object) -> str:
    """Return a namespace if it can name a schema of ours.

    Raises:
        InvalidName: it can't.
    """
    name = check_name("namespace", namespace)
    if len(name) > _LONGEST_SCHEMA:
        raise InvalidName(
            f"namespace {name!r}: it names a schema, so use {_LONGEST_SCHEMA} characters at most"
        )
    if name in _NOT_OURS or name.startswith("pg_"):
        raise InvalidName(
            f"namespace {name!r}: its schema must hold only tables of mindtrace-jobs; choose another name"
        )
    return name


def _check_text(what: str, value: object) -> None:
    """Demand a text that isn't empty.

    Raises:
        InvalidInput: it is something else.
    """
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidInput(f"{what} {value!r:.80}: must be a text")
