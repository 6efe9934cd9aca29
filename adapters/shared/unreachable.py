"""How to fix a server that can't be reached, by why it can't."""

from collections.abc import Iterator
from socket import gaierror
from ssl import SSLCertVerificationError, SSLError


def remedy(error: BaseException, *, start: str, is_local: bool) -> str:
    """Say what to do.

    Args:
        error: Why the server can't be reached, with its causes.
        start: The command that starts a server.
        is_local: Whether the server should be on this machine.
    """
    causes = list(_causes(error))
    if any(isinstance(cause, gaierror) for cause in causes):
        return "no host of this name is known here: correct the name"
    if any(isinstance(cause, SSLCertVerificationError) for cause in causes):
        return "its certificate is refused: check the host's name, and that ssl_ca_certs names the authority"
    if any(isinstance(cause, SSLError) for cause in causes):
        return "TLS fails: check whether the server uses TLS on this port, and its certificate"
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return "check the host, the port, whether the server uses TLS there, and whether it hangs"
    if is_local:
        return f"is it running? Start one with: {start}"
    return "is it running, and may this machine reach it? Check the host, the port and the firewall"


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
