"""The checks of what a client is told, before anything connects. No message shows a password (SEC-3)."""

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from pydantic import SecretStr

from ...domain.errors import InvalidInput
from ...domain.limits import check_int, check_seconds
from ...ports import Durability

Password = str | SecretStr | None


def check_address(what: str, host: object, port: object) -> None:
    """Demand a host's name and the number of a port.

    Raises:
        InvalidInput: it is none.
    """
    if not isinstance(host, str) or not host or host != host.strip() or "/" in host:
        raise InvalidInput(f"{what} {host!r:.80}: give a host's name or address, and nothing else")
    check_int(f"{what}'s port", port, 1, 65535)


def check_sentinels(addresses: object, service: object, password: object) -> None:
    """Demand pairs of host and port, and the name of what they watch; without any, no password for them.

    Raises:
        InvalidInput: it is something else.
    """
    if isinstance(addresses, str) or not isinstance(addresses, Sequence):
        raise InvalidInput(f"sentinels {addresses!r:.80}: give a list of (host, port)")
    for pair in addresses:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InvalidInput(f"sentinels: {pair!r:.80} isn't (host, port)")
        check_address("sentinel", *pair)
    if addresses and (not isinstance(service, str) or not service):
        raise InvalidInput(f"sentinel_service {service!r:.80}: say what the Sentinels call the server")
    if password is not None and not addresses:
        raise InvalidInput("sentinel_password is of use only with sentinels")
    plain_password("sentinel_password", password)


def check_credentials(username: object, password: object) -> None:
    """Demand texts, and a password for a user.

    Raises:
        InvalidInput: one is missing, or something else.
    """
    if username is not None and not isinstance(username, str):
        raise InvalidInput(f"username: must be a text, not {type(username).__name__}")
    if username and password is None:
        raise InvalidInput(f"username {username!r:.80}: needs a password")
    plain_password("password", password)


def plain_password(what: str, password: object) -> str | None:
    """Return the password as the driver takes it.

    Raises:
        InvalidInput: it is something else.
    """
    if isinstance(password, SecretStr):
        return password.get_secret_value()
    if password is None or isinstance(password, str):
        return password
    raise InvalidInput(f"{what}: must be a text or a SecretStr, not {type(password).__name__}")


def check_tls(ssl: object, ca_certs: object) -> None:
    """Demand a file of certificates that exists, and only where it is used.

    Raises:
        InvalidInput: there is none.
    """
    if not isinstance(ssl, bool):
        raise InvalidInput(f"ssl {ssl!r:.80}: must be True or False")
    if ca_certs is None:
        return
    if not ssl:
        raise InvalidInput("ssl_ca_certs is of use only with ssl=True, or in a rediss:// URL")
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


def parsed_durability(durability: object) -> Durability:
    """Return what is declared of the server.

    Raises:
        InvalidInput: it is none of what can be.
    """
    try:
        return Durability(durability)  # type: ignore[arg-type]
    except ValueError:
        choices = ", ".join(repr(str(each)) for each in Durability)
        raise InvalidInput(f"durability {durability!r:.80}: must be one of {choices}") from None


def is_loopback(host: str) -> bool:
    """Whether what is sent to ``host`` stays on this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
