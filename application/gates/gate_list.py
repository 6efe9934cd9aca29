"""The one list of a queue's gates, by its schema and its broker, for consumers and ``receive_message``."""

from functools import partial
from typing import Any

from ...domain import JobSchema
from ...ports import OrchestratorBackend
from ..pausing.watch import PauseWatch
from .gate import Gate


def gates_of(
    backend: OrchestratorBackend, schema: JobSchema[Any, Any], queue: str, watch: PauseWatch
) -> list[Gate]:
    """Return the gates that the jobs of a queue have to pass, in their order.

    Args:
        backend: Where the queue is.
        schema: The schema of the jobs.
        queue: The queue's name.
        watch: Knows whether jobs of the queue are cancelled; it has the store of the gates.
    """
    gates: list[Gate] = []
    if schema.unique is not None:  # imports what few consumers need, as below
        from ..unique_jobs.records import UniqueRecords
        from .unique_gate import ReplacedGate, UniqueGate

        records = UniqueRecords(backend, queue, schema)
        if schema.unique.replaces:
            result_ttl_s = schema.result_ttl_s if backend.capabilities.results else None
            gates.append(ReplacedGate(records, result_ttl_s, watch.outage, watch.logger))
        gates.append(UniqueGate(records, watch.outage))
    if not backend.capabilities.cancel:
        from ..cancelling.requests import CancelRequests
        from .cancel_gate import CancelGate

        requests = CancelRequests(backend.coordination, queue)
        has_some = partial(watch.has_cancels, queue)
        gates.append(CancelGate(requests, has_some, schema.result_ttl_s, watch.outage, watch.logger))
    return gates
