"""From what a user hands over to the backend it means, and from there to the right ``ConsumerBackend``.

Adapters join through the entry point group ``mindtrace.jobs.adapters``: the entry's name is a URL scheme, its
value a callable that makes a backend of a URL. Nothing is imported before its scheme is asked for.

One that takes ``results=`` or ``store=`` is given the store that its URL names under that word, by a URL as
well, whose schemes are those of the group ``mindtrace.jobs.results`` or ``mindtrace.jobs.coordination``. So
no adapter need know another. What ``store=`` names keeps results, too, unless ``results=`` says where.
"""

import re
from collections.abc import Callable, Collection, Iterable
from importlib.metadata import EntryPoint, entry_points
from inspect import signature
from os import PathLike
from typing import Any, NamedTuple
from urllib.parse import unquote

from ...domain.errors import AdapterNotInstalled, UnknownBackend
from ...domain.wording import closest
from ...ports import ConsumerBackend, CoordinationStore, OrchestratorBackend, ResultStore

GROUP = "mindtrace.jobs.adapters"
_FILE = re.compile(r"^[\w./\\-]+\.(db|sqlite3?)$")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


class _StoreKind(NamedTuple):
    """What a word in a backend's URL may name."""

    name: str
    group: str
    """The group of entry points that make one from its URL."""


_STORES = {
    "results": _StoreKind("result store", "mindtrace.jobs.results"),
    "store": _StoreKind("coordination store", "mindtrace.jobs.coordination"),
}
"""By the word, which is also the name of the parameter."""


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
            raise UnknownBackend(f"{shown} is a class: pass an instance, {shown}(…)")
        if isinstance(backend, PathLike):
            raise UnknownBackend(f"{shown} is not a backend: for a file, pass SQLiteClient(path)")
        raise UnknownBackend(
            f"{shown} is not a backend: pass an OrchestratorBackend, such as LocalClient(), or a URL; "
            f"{_known(registered)}"
        )
    scheme = _scheme(backend)
    if scheme is None:
        if _FILE.search(backend):
            raise UnknownBackend(f"{backend!r:.140} is a path: write sqlite:///{backend:.140}")
        raise UnknownBackend(
            "a backend URL starts with a scheme, such as sqlite:///jobs.db or redis://localhost:6379/0; "
            f"{_known(registered)}"
        )
    for entry in registered:
        if entry.name == scheme:
            return _open(entry, backend)
    raise UnknownBackend(f"no adapter for {scheme}:// is installed; {_resembling(scheme, registered)}")


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


def _scheme(url: str) -> str | None:
    """The scheme of a URL: all of it that is ever shown, as the rest may hold a password (SEC-3)."""
    scheme, separator, _ = url.partition("://")
    return scheme if separator and _SCHEME.fullmatch(scheme) else None


def _open(entry: EntryPoint, url: str) -> OrchestratorBackend:
    make = _load(entry)
    taken = _STORES.keys() & signature(make).parameters.keys()
    rest, urls = _without_stores(url, taken)
    backend = make(rest, **{word: _open_store(_STORES[word], word, named) for word, named in urls.items()})
    if not isinstance(backend, OrchestratorBackend):
        raise UnknownBackend(
            f"adapter {entry.value!r} must return an OrchestratorBackend, not {type(backend).__name__}"
        )
    return backend


def _open_store(kind: _StoreKind, word: str, url: str) -> ResultStore | CoordinationStore:
    registered = entry_points(group=kind.group)
    scheme = _scheme(url)
    if scheme in registered.names:
        store: ResultStore | CoordinationStore = _load(registered[scheme])(url)
        return store
    if scheme is None:
        raise UnknownBackend(f"{word}= must be a URL; {_known(registered)}")
    raise UnknownBackend(f"no {kind.name} for {scheme}:// is installed; {_resembling(scheme, registered)}")


def _without_stores(url: str, taken: Collection[str]) -> tuple[str, dict[str, str]]:
    """Take the words that name stores out of a URL's query; return the rest, and the URL of each store."""
    base, _, query = url.partition("?")
    words = query.split("&")
    found = {word: value for word, _, value in (each.partition("=") for each in words) if word in taken}
    if not found:
        return url, {}
    rest = "&".join(each for each in words if each.partition("=")[0] not in found)
    urls = {word: unquote(value) for word, value in found.items()}
    if "results" in taken and "store" in urls and _keeps_results(urls["store"]):
        urls.setdefault("results", urls["store"])
    return f"{base}?{rest}" if rest else base, urls


def _keeps_results(url: str) -> bool:
    return _scheme(url) in entry_points(group=_STORES["results"].group).names


def _load(entry: EntryPoint) -> Callable[..., Any]:
    try:
        make: Callable[..., Any] = entry.load()
    except ImportError as error:
        distribution = entry.dist.name if entry.dist is not None else entry.module
        wanted = f"{distribution}[{','.join(entry.extras)}]" if entry.extras else distribution
        if entry.dist is not None:  # without a version, an installer may take an older release
            wanted += f">={entry.dist.version}"
        raise AdapterNotInstalled(
            f"{entry.name}:// needs {error.name or error}: pip install '{wanted}'", name=error.name
        ) from error
    return make


def _known(registered: Iterable[EntryPoint]) -> str:
    schemes = ", ".join(sorted(f"{entry.name}://" for entry in registered))
    return f"registered: {schemes or 'none'}"


def _resembling(scheme: str, registered: Iterable[EntryPoint]) -> str:
    """Name the scheme that was probably meant, and all others."""
    close = closest(scheme.lower(), (entry.name for entry in registered))
    return _known(registered) if close is None else f"did you mean {close}://? {_known(registered)}"
