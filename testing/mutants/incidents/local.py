"""Faults in the adapter that keeps jobs in memory."""

from ..mutant import Mutant


def _python(name: str, module: str, old: str, new: str, sentence: str, *clauses: str) -> Mutant:
    return Mutant(name, f"adapters/local/{module}.py", old, new, sentence, clauses)


MUTANTS: tuple[Mutant, ...] = (
    _python(
        "AReleaseWakesNobody",
        "queue",
        "            self._order.give_back(job)\n            self._pass_on()\n        return _OK",
        "            self._order.give_back(job)\n        return _OK",
        "A released job waits until another consumer asks again.",
        "RCV-2",
    ),
    _python(
        "ACloseCancelsNothing",
        "queue",
        "                if job.cancel_ttl_s is None:\n                    self._order.give_back(job)",
        "                if True:\n                    self._order.give_back(job)",
        "A job that is asked to be cancelled runs again once its consumer closes.",
        "CAN-3",
    ),
    _python(
        "ADeadJobOfAPriorityQueueForgetsIt",
        "queue",
        "StoredJob(job.id, job.body, job.priority, number=job.number)",
        "StoredJob(job.id, job.body, 0, number=job.number)",
        "A redriven job comes back at priority 0.",
        "DLQ-2",
        "ORD-3",
    ),
    _python(
        "ANextJobIsAdmittedBeforeTheEnd",
        "queue",
        "            self._live.pop(job.id, None)\n            self._results.keep",
        "            self._results.keep",
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
)
