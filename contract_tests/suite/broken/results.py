"""Faults of results."""

import threading
from collections.abc import Callable
from dataclasses import replace

from ...domain.errors import UnsupportedCapability
from ...ports import Ack, Capabilities, Dead, JobResult, ResultStatus, Settlement
from .administration import keeps_results
from .fault_bases import RecordsDeliveries
from .fault_registry import breaks
from .leases import timed
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


@breaks("RES-1", where=keeps_results)
class ResultsNeverExpire(PassThrough):
    """Results are kept for ever, and fill the broker."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        return settlement._replace(result_ttl_s=1e6) if isinstance(settlement, Ack) else settlement


@breaks("RES-1", where=keeps_results)
class AResultIsReadOnce(PassThrough):
    """Reading a result takes it away."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._read: set[str] = set()

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        if job_id in self._read:
            return None
        found = super().result(client, queue, job_id, timeout_s)
        if found:
            self._read.add(job_id)
        return found


@breaks("RES-1", where=keeps_results)
class NoResultWakesAWaiter(PassThrough):
    """Who waits for a result looks when its timeout is over, and not before."""

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        threading.Event().wait(timeout_s)
        return super().result(client, queue, job_id, 0.0)


@breaks("RES-1", "RES-2", where=keeps_results)
class TheDeadAnswerNothing(PassThrough):
    """A job that is dead has no result, and who waits for it is never told."""

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        found = super().result(client, queue, job_id, timeout_s)
        return found if found and found.status is ResultStatus.DONE else None


@breaks("RES-1")
class ClaimsToKeepResults(PassThrough):
    """Results are declared as a capability, and refused when asked for."""

    def capabilities(self, client: BrokenBackend) -> Capabilities:
        return replace(super().capabilities(client), results=True)

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        return settlement._replace(result=None) if isinstance(settlement, Ack) else settlement

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        raise UnsupportedCapability("no results here")


@breaks("RES-2", where=keeps_results)
class WhatRunsIsDone(RecordsDeliveries):
    """A job that was delivered is taken for done: it has a result before its ack."""

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        found = super().result(client, queue, job_id, timeout_s)
        delivered = {delivery.id for delivery in self.delivered.values()}
        return JobResult(ResultStatus.DONE) if found is None and job_id in delivered else found


@breaks("RES-2", where=lambda capabilities: keeps_results(capabilities) and timed(capabilities))
class StoresTheResultOfAStaleAck(RecordsDeliveries):
    """A result is stored in a step of its own before the ack, which may then turn out to be stale."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._stored: dict[str, JobResult] = {}

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Ack) and settlement.receipt in self.delivered:
            id_ = self.delivered[settlement.receipt].id
            self._stored[id_] = JobResult(ResultStatus.DONE, settlement.result)
        return settlement

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        return self._stored.get(job_id) or super().result(client, queue, job_id, timeout_s)


@breaks("RES-2", where=keeps_results)
class AFailureLosesItsError(PassThrough):
    """The error of a job that is given up isn't stored with its death."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        return settlement._replace(error="") if isinstance(settlement, Dead) else settlement
