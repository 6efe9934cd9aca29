"""What an adapter checks of the server that it is told of, before anything connects.

No message shows a password (SEC-3).
"""

import re
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple, TypedDict
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr

from ...domain.bounds import check_seconds
from ...domain.errors import InvalidInput
from ...ports import Durability

Address = tuple[str, int]
"""A host and a port."""
Password = str | SecretStr | None
_AUTHORITY = re.compile(r"[^/?#]*")
"""What stands before a URL's path."""


def check_address(what: str, host: object, port: object) -> None:
    """Demand a host's name and the number of a port.

    Raises:
        InvalidInput: it is none; the message doesn't show what may be a URL with a password.
    """
    if isinstance(host, str) and ("://" in host or "@" in host):
        raise InvalidInput(f"{what}: it is a URL or a part of one; pass the URL to from_url")
    if not isinstance(host, str) or not host or host != host.strip() or "/" in host:
        raise InvalidInput(f"{what} {host!r:.80}: give a host's name or address, and nothing else")
    check_number(f"{what}'s port", port, 1, 65535)


def parsed_durability(durability: object, choices: Sequence[Durability]) -> Durability:
    """Return what is declared of a server.

    Args:
        durability: What was passed.
        choices: What such a server can be set up to keep.

    Raises:
        InvalidInput: it is none of them.
    """
    for known in choices:
        if durability == known:
            return known
    words = ", ".join(repr(str(each)) for each in choices)
    raise InvalidInput(f"durability {durability!r:.80}: must be one of {words}")


def check_number(what: str, value: object, low: int, high: int) -> int:
    """Demand an integer from ``low`` to ``high``.

    Raises:
        InvalidInput: it isn't; the message says how to convert a text, as environment variables are.
    """
    if type(value) is int and low <= value <= high:
        return value
    remedy = "; convert the text with int(…)" if isinstance(value, str) and value.isdecimal() else ""
    raise InvalidInput(f"{what} {value!r:.80}: must be an integer from {low} to {high}{remedy}")


def check_pairs(what: str, pairs: object) -> None:
    """Demand a list of hosts with their ports, by its shape.

    Raises:
        InvalidInput: it is something else.
    """
    if isinstance(pairs, str) or not isinstance(pairs, Sequence):
        raise InvalidInput(f"{what} {pairs!r:.80}: give a list of (host, port)")
    for pair in pairs:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InvalidInput(f"{what}: {pair!r:.80} isn't (host, port)")


def check_tls(ssl: object, ca_certs: object, *, url: str) -> None:
    """Demand a file of certificates that exists, and only where it is used.

    Args:
        ssl: Whether to encrypt.
        ca_certs: The file's path, or None.
        url: What to call a URL that encrypts, in the message.

    Raises:
        InvalidInput: it is something else.
    """
    if not isinstance(ssl, bool):
        raise InvalidInput(f"ssl {ssl!r:.80}: must be True or False")
    if ca_certs is None:
        return
    if not ssl:
        raise InvalidInput(f"ssl_ca_certs is of use only with ssl=True, or in {url}")
    if not isinstance(ca_certs, str) or not Path(ca_certs).is_file():
        raise InvalidInput(f"ssl_ca_certs {ca_certs!r:.200}: there is no such file")


def check_duration(what: str, seconds: object) -> float:
    """Return a number of seconds that is more than none.

    Raises:
        InvalidInput: it isn't.
    """
    if (checked := check_seconds(what, seconds)) == 0:
        raise InvalidInput(f"{what} 0: must be more than 0 seconds")
    return checked


class Patience(TypedDict, total=False):
    """What a URL says of how long a call waits for its server."""

    retry_timeout_s: float
    """How many seconds a call tries to reach the server before it fails."""


def given_patience(query: dict[str, str]) -> Patience:
    """Take ``retry_timeout_s`` out of the query of a URL, and return it by its name, or nothing.

    Raises:
        InvalidInput: it is no number of seconds that is more than none.
    """
    text = query.pop("retry_timeout_s", None)
    if text is None:
        return {}
    try:
        seconds: object = float(text)
    except ValueError:
        seconds = text
    return {"retry_timeout_s": check_duration("retry_timeout_s", seconds)}


def plain_password(what: str, password: object) -> str | None:
    """Return the password as a driver takes it, or None where there is none.

    Raises:
        InvalidInput: it is something else.
    """
    if isinstance(password, SecretStr):
        return password.get_secret_value()
    if password is None or isinstance(password, str):
        return password
    raise InvalidInput(f"{what}: must be a text or a SecretStr, not {type(password).__name__}")


class ServerURL(NamedTuple):
    """The parts of a URL: user and password as they are, or empty, and the rest as it is written."""

    username: str
    password: str
    addresses: list[str]
    path: str
    query: str


def split_url(url: str) -> ServerURL:
    """Split ``scheme://[user[:password]@]host[:port][,host[:port]…][/path][?query]``.

    The hosts are told apart here: newer releases of Python refuse a URL in which an address in brackets
    follows another host.

    Raises:
        ValueError: it is no URL; the message may show the password.
    """
    rest = url.partition("://")[2]
    authority = _AUTHORITY.match(rest)[0]  # type: ignore[index]  # it matches any text
    parts = urlsplit(f"//host{rest[len(authority) :]}")
    who, _, where = authority.rpartition("@")
    username, _, password = map(unquote, who.partition(":"))
    return ServerURL(username, password, where.split(","), parts.path, parts.query)


def parsed_address(text: str, default_port: int) -> Address:
    """Read ``host[:port]``, as it stands in a URL.

    Raises:
        ValueError: the port is none.
    """
    parts = urlsplit(f"//{text}")
    return parts.hostname or "localhost", default_port if parts.port is None else parts.port


def netloc(username: str | None, password: str | None, addresses: Sequence[Address]) -> str:
    """Write what :func:`parsed_address` and its callers read: who connects, and where."""
    who = quote(username or "", safe="")
    if password is not None:
        who += f":{quote(password, safe='')}"
    where = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in addresses)
    return f"{who}@{where}" if who else where


def is_loopback(host: str) -> bool:
    """Whether what is sent to ``host`` stays on this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
