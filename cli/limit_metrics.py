"""What limits allow, and how much of it is used, for Prometheus."""

from collections.abc import Iterable
from typing import Any

from ..application.api.orchestrator import Orchestrator
from ..application.limits.overview import LimitUse, RateUse
from ..domain.errors import JobsError
from .logs import WORKER

_LABELS = ("limit", "messaging_destination_name")
"""A limit's name, or else the name of its queue. The other one is empty, and so Prometheus leaves it out."""


class LimitCollector:
    """Tells what the limits of a namespace allow when it is asked, and how much of it is used.

    No label names a key: of a limit by a field there may be any number.

    Args:
        orchestrator: The backend that the limits are on; it has a coordination store.
    """

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator

    def describe(self) -> Iterable[Any]:
        """Name the metrics, without a look at the limits."""
        return self._metrics([])

    def collect(self) -> Iterable[Any]:
        """Return the metrics; they have no values if the store doesn't answer."""
        try:
            found = self._orchestrator.limits(busiest=1)
        except JobsError as error:
            WORKER.warning("the places of limits can't be counted: %s", error)
            found = []
        return self._metrics(found)

    def _metrics(self, found: Iterable[LimitUse | RateUse]) -> list[Any]:
        from prometheus_client.core import GaugeMetricFamily

        def gauge(name: str, text: str) -> Any:
            return GaugeMetricFamily(f"mindtrace_jobs_{name}", text, labels=_LABELS)

        allowed = gauge("limit_allowed", "Jobs that may run at once; of a limit by a field, of each key.")
        used = gauge("limit_used", "Places that jobs have, of all keys together.")
        waiting = gauge("limit_waiting", "Jobs that wait in line with consumers for a place.")
        most = gauge("limit_used_by_busiest_key", "Places that the jobs of one key have, at most.")
        rate = gauge("rate_allowed_per_second", "Jobs that may start in a second; by a field, of each key.")
        for use in found:
            labels = [use.name, ""] if use.is_named else ["", use.name]
            if use.kind == "rate":
                rate.add_metric(labels, use.allowed.count / use.allowed.per_s)
                continue
            allowed.add_metric(labels, use.allowed)
            used.add_metric(labels, use.used)
            waiting.add_metric(labels, use.waiting)
            if use.by:
                most.add_metric(labels, max((key.used for key in use.busiest), default=0))
        return [allowed, used, waiting, most, rate]
