"""Faults in the adapter that keeps jobs in memory."""

from ..mutant import Mutant


def _python(name: str, module: str, old: str, new: str, sentence: str, *clauses: str) -> Mutant:
    return Mutant(name, f"adapters/local/{module}.py", old, new, sentence, clauses)


MUTANTS: tuple[Mutant, ...] = (
    _python(
        "AReleaseWakesNobody",
        "queue",
        "            self._order.give_back(job)\n            self._receivers.notify()\n            return",
        "            self._order.give_back(job)\n            return",
        "A released job waits until another consumer asks again.",
        "RCV-2",
    ),
    _python(
        "ACloseCancelsNothing",
        "queue",
        "        if job.cancel_ttl_s is None:\n            self._order.give_back(job)",
        "        if True:\n            self._order.give_back(job)",
        "A job that is asked to be cancelled runs again once its consumer closes.",
        "CAN-3",
    ),
    _python(
        "ADeadJobOfAPriorityQueueForgetsIt",
        "queue",
        "StoredJob(job.id, job.body, job.priority, next(self._places), number=job.number)",
        "StoredJob(job.id, job.body, 0, next(self._places), number=job.number)",
        "A redriven job comes back at priority 0.",
        "DLQ-2",
        "ORD-3",
    ),
    _python(
        "ANextJobIsAdmittedBeforeTheEnd",
        "queue",
        "            del held[receipt]\n            self._live.pop(job.id, None)\n            if",
        "            del held[receipt]\n            if",
        "A job that is done stays live, so that its id can't be used again.",
        "PUB-5",
        "SET-1",
    ),
    _python(
        "TheNewestOfAStackThatCameBackIsFirst",
        "order",
        "-self._returned[0][0] > self._waiting[-1].place",
        "-self._returned[0][0] < self._waiting[-1].place",
        "A job that came back to a stack is served before newer ones.",
        "ORD-4",
    ),
    _python(
        "OneReceiverThatLeavesStandsForAll",
        "queue",
        "        self._receivers.pop(wake, None)\n        self._receivers.notify()",
        "        self._receivers.clear()",
        "Once one of several receivers has left, a publish wakes none of the others.",
        "RCV-2",
    ),
    _python(
        "OneWaiterThatLeavesStandsForAll",
        "ended",
        "                self.waits.pop(wake, None)",
        "                self.waits.clear()",
        "Once one of several waiters for results has left, an end wakes none of the others.",
        "RES-1",
    ),
    _python(
        "ARedriveKeepsTheHistory",
        "queue",
        "next(self._places), number=job.number)",
        "next(self._places), number=job.number, history=job.history)",
        "A redriven job that dies again has the failures of its first life.",
        "DLQ-2",
    ),
    _python(
        "AReleaseIsTheLastOfItsPriority",
        "order",
        "self._levels[job.priority].give_back(job)",
        "self._levels[job.priority].add(job)",
        "A job that came back to a priority queue stands behind its equals.",
        "ORD-4",
    ),
    _python(
        "ThoseBackOnAStackAreTurnedRound",
        "order",
        "heappush(self._returned, (-job.place, job))",
        "heappush(self._returned, (job.place - 2 * 10**9, job))",
        "Of jobs that came back to a stack the oldest is served first.",
        "ORD-4",
    ),
    _python(
        "EndsAreForgottenEarly",
        "ended",
        "> REMEMBERED_ENDS:",
        "> REMEMBERED_ENDS // 10:",
        "A thousand ends are remembered in place of ten thousand.",
        "RES-1",
    ),
    _python(
        "TheDeadLeaveTheirTables",
        "queue",
        "            self._tables.remove(table)\n",
        "",
        "The lease table of a consumer that closed is kept for ever.",
        "CON-2",
    ),
    _python(
        "ReceiversAreCountedAndNeverLeave",
        "queue",
        "        self._receivers.pop(wake, None)\n        self._receivers.notify()",
        "        self._receivers.notify()",
        "Each receiver that gave up is kept for ever, and a publish wakes it in place of one that waits.",
        "CON-2",
    ),
)
