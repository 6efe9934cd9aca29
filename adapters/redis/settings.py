"""The checks of what a client is told, before anything connects. No message shows a password (SEC-3)."""

from collections.abc import Sequence

from pydantic import SecretStr

from ...domain.errors import InvalidInput
from ...ports import Durability
from ..shared.server_settings import check_address, check_pairs, plain_password

Password = str | SecretStr | None


def check_sentinels(addresses: Sequence[tuple[str, int]], service: object, password: object) -> None:
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
