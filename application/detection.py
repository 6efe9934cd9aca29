"""From what a user hands over to the backend it means, and from there to the right ``ConsumerBackend``.

Adapters join through the entry point group ``mindtrace.jobs.adapters``: the entry's name is a URL scheme, its
value a callable that makes a backend of a URL. Nothing is imported before its scheme is asked for.
"""

import re
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from ..domain.errors import AdapterNotInstalled, UnknownBackend
from ..ports import ConsumerBackend, OrchestratorBackend

GROUP = "mindtrace.jobs.adapters"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


def detect_backend(backend: object) -> OrchestratorBackend:
    """Return the backend that ``backend`` is, or that a URL such as ``memory://`` names.

    Raises:
        UnknownBackend: it is neither a backend nor a URL of a registered scheme.
        AdapterNotInstalled: the scheme's adapter lacks a library; the message says what to install.
    """
    if isinstance(backend, OrchestratorBackend):
        return backend
    registered = entry_points(group=GROUP)
    if not isinstance(backend, str):
        shown = backend.__name__ if isinstance(backend, type) else type(backend).__name__
        if isinstance(backend, type) and issubclass(backend, OrchestratorBackend):
            raise UnknownBackend(f"{shown} is a class: give an instance, {shown}(…)")
        raise UnknownBackend(
            f"{shown} is not a backend, which derives from OrchestratorBackend; {_known(registered)}"
        )
    # Only the scheme is ever shown: the rest of a URL may hold a password (SEC-3).
    scheme, separator, _ = backend.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        raise UnknownBackend(f"a backend URL starts with a scheme, such as memory://; {_known(registered)}")
    for entry in registered:
        if entry.name == scheme:
            return _open(entry, backend)
    raise UnknownBackend(f"no adapter for {scheme}:// is installed; {_known(registered)}")


def detect_consumer_backend(
    backend: OrchestratorBackend, queue: str, *, lease_s: float, prefetch: int | None
) -> ConsumerBackend:
    """Open the ``ConsumerBackend`` that belongs to ``backend``, on a declared ``queue``.

    The backend's own class knows which that is, so a backend of a third party needs no registration here.

    Raises:
        QueueNotFound: the queue isn't declared.
        BackendUnavailable: the broker can't be reached.
    """
    return backend.open_consumer(queue, lease_s=lease_s, prefetch=prefetch)


def _open(entry: EntryPoint, url: str) -> OrchestratorBackend:
    try:
        make = entry.load()
    except ImportError as error:
        distribution = entry.dist.name if entry.dist is not None else entry.module
        wanted = f"{distribution}[{','.join(entry.extras)}]" if entry.extras else distribution
        raise AdapterNotInstalled(
            f"{entry.name}:// needs {error.name or error}: pip install '{wanted}'", name=error.name
        ) from error
    backend = make(url)
    if not isinstance(backend, OrchestratorBackend):
        raise UnknownBackend(
            f"adapter {entry.value!r} made a {type(backend).__name__}, which is no OrchestratorBackend"
        )
    return backend


def _known(registered: Iterable[EntryPoint]) -> str:
    schemes = ", ".join(sorted(f"{entry.name}://" for entry in registered))
    return f"registered: {schemes or 'none'}"
