"""Prometheus metrics of a worker: what its processes count."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..ports import Observer
from .errors import NotInstalled
from .metrics_server import MetricsServer
from .settings import Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

DEFAULT_PORT = 9105
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def metrics_observer(url: str) -> Observer:
    """The observer of one process; the environment says which folder it counts into."""
    from ..adapters.telemetry.prometheus import PrometheusObserver

    return PrometheusObserver(url.partition("://")[0])


@contextmanager
def serving(settings: Settings, folder: Path) -> Iterator[dict[str, str]]:
    """Serve what all processes of a worker count; yields the environment that they need.

    Raises:
        NotInstalled: the extra ``metrics`` is missing.
        BadUsage: the port is taken.
    """
    served = exposition_for("--metrics-port")
    folder.mkdir()
    from prometheus_client.multiprocess import MultiProcessCollector

    MultiProcessCollector(served.registry, path=str(folder))  # type: ignore[no-untyped-call]
    with served.served(settings.metrics_host, settings.metrics_port or DEFAULT_PORT):
        yield {_FOLDER: str(folder)}


class Exposition(NamedTuple):
    """Collects metrics, and writes them as Prometheus reads them."""

    registry: "CollectorRegistry"
    write: "Callable[[CollectorRegistry], bytes]"
    content_type: str

    def served(self, host: str, port: int) -> MetricsServer:
        """Return a server of the metrics, for ``with``."""
        return MetricsServer(host, port, self.content_type, lambda: self.write(self.registry))


def exposition_for(what: str) -> Exposition:
    """Return a registry that is empty.

    Args:
        what: What needs the extra ``metrics``.

    Raises:
        NotInstalled: it is missing.
    """
    try:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    except ModuleNotFoundError as error:
        raise NotInstalled(what, error.name, "metrics") from error
    return Exposition(CollectorRegistry(), generate_latest, CONTENT_TYPE_LATEST)
