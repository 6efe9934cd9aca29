"""Faults of what calls leave behind, though all that they made has ended."""

import threading
from collections.abc import Sequence

from ...ports import CancelOutcome, JobResult
from .administration import keeps_results
from .cancelling import breaks_cancel
from .fault_registry import breaks
from .pass_through import BrokenBackend, PassThrough

_LONG_S = 60.0
"""A timeout of a result that is longer isn't meant to pass."""


@breaks("CON-2", where=keeps_results)
class LeavesAThreadForEachAwaitedResult(PassThrough):
    """The thread that watches over the timeout of a result isn't ended by the answer."""

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        if timeout_s > _LONG_S:
            threading.Thread(target=threading.Event().wait, args=(timeout_s,), daemon=True).start()
        return super().result(client, queue, job_id, timeout_s)


@breaks_cancel("CON-2")
class LeavesARowForEachCancel(PassThrough):
    """Each cancel writes a row into a log of requests, which nobody ever clears."""

    def cancel(
        self, client: BrokenBackend, queue: str, ids: Sequence[str], result_ttl_s: float
    ) -> list[CancelOutcome]:
        self.stored += 1
        return super().cancel(client, queue, ids, result_ttl_s)
