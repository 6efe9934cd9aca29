"""Audit a test that injects faults: where every job went, and how often each ran."""

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from whole_lines import whole_lines

from mindtrace.jobs import OrchestratorBackend
from mindtrace.jobs.ports import ResultStatus


class Execution(NamedTuple):
    """One execution of a job: the process, and the job."""

    pid: int
    job_id: str


class ExecutionRecord:
    """A file to which all processes append a line for each execution, before the work is done.

    One write per line in append mode: no kill loses a line, and no two are mixed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def writer(self) -> int:
        """Open it for writing, and return the descriptor."""
        return os.open(self.path, os.O_WRONLY | os.O_APPEND)

    @staticmethod
    def write(descriptor: int, job_id: str) -> None:
        """Note that a job is run by this process."""
        os.write(descriptor, f"{os.getpid()} {job_id}\n".encode())

    def runs(self) -> list[Execution]:
        """Every execution so far, in order."""
        lines = (line.split() for line in whole_lines(self.path))
        return [Execution(int(pid), job_id) for pid, job_id in lines]

    def __len__(self) -> int:
        return self.path.read_bytes().count(b"\n")


class Fault(NamedTuple):
    """A fault that hit workers, and the part of the record of deliveries in which it happened."""

    pids: frozenset[int]
    began: int
    """How many lines the record had before it."""
    ended: int
    """How many it had after it."""
    in_flight: int
    """How many jobs each of the workers may have received and not settled, at any one time."""

    def affected(self, runs: list[Execution]) -> set[str]:
        """Return the jobs that may have been in flight at a worker that was hit.

        These are the last that it received before the fault, all during it, and the first after it, since the
        fault may be noted a moment late. A job can run twice without having been started: to release one, the
        adapter sends RabbitMQ a copy before it acknowledges the original.
        """
        ids: set[str] = set()
        for pid in self.pids:
            mine = [(place, job_id) for place, (of, job_id) in enumerate(runs) if of == pid]
            before = [job_id for place, job_id in mine if place < self.began]
            after = [job_id for place, job_id in mine if place >= self.ended]
            ids.update(before[max(0, len(before) - self.in_flight) :], after[: self.in_flight])
            ids.update(job_id for place, job_id in mine if self.began <= place < self.ended)
        return ids

    @property
    def max_reruns(self) -> int:
        """How many jobs it may cause to run again."""
        return len(self.pids) * self.in_flight


@dataclass(slots=True)
class JobAudit:
    """What a test published, which faults it injected, and whether the outcome is right."""

    confirmed: set[str] = field(default_factory=set)
    """Ids that were answered ACCEPTED or DUPLICATE."""
    unconfirmed: set[str] = field(default_factory=set)
    """Ids that may or may not be in the queue."""
    in_flight_at_faults: list[set[str]] = field(default_factory=list)
    """The ids that were in flight, once for each fault."""
    faults: list[Fault] = field(default_factory=list)
    """The faults for which only the record shows what was in flight."""
    dropped: int = 0
    """How many jobs were dropped on request, by a purge or a discard."""

    def check(
        self,
        backend: OrchestratorBackend,
        queue: str,
        record: ExecutionRecord,
        finished: ExecutionRecord | None = None,
        received: ExecutionRecord | None = None,
        *,
        all_done: bool = True,
    ) -> "Totals":
        """Demand that every job is accounted for, and return the figures.

        Every confirmed job is done, dead, ready, delayed, in flight or dropped on request; nothing ran that
        wasn't published; a job ran once more than once only for each fault at which it was in flight.

        Args:
            backend: The backend of the queue.
            queue: The queue.
            record: Every execution, recorded before the work.
            finished: Every execution, recorded after the work. Without results it shows which jobs are done,
                once no job is left that could run again.
            received: Every delivery, for :attr:`faults`; ``record`` by default.
            all_done: Demand further that every confirmed job is done.
        """
        dead = {letter.id for letter in backend.dead_letters(queue, limit=10**6)} & self.confirmed
        counts = backend.counts(queue)
        live = counts.waiting + (counts.in_flight or 0)
        worked = None if finished is None else {run.job_id for run in finished.runs()}
        if backend.capabilities.results:
            done = self._done_by_results(backend, queue)
        else:
            assert worked is not None, "without results, a record must tell what is done"
            assert live == 0, f"{live} jobs are left: which of those that ran are done?"
            done = (worked & self.confirmed) - dead
        lost = len(self.confirmed) - len(done) - len(dead) - live - self.dropped
        assert lost <= 0, f"{lost} of {len(self.confirmed)} jobs are lost"
        assert -lost <= len(self.unconfirmed), f"{-lost} jobs more than were published"
        assert counts.dead >= len(dead)

        executions = record.runs()
        runs = Counter(run.job_id for run in executions)
        strange = runs.keys() - self.confirmed - self.unconfirmed
        assert not strange, f"{len(strange)} jobs ran that were never published: {_few(strange)}"
        unrun = done - (runs.keys() if worked is None else worked)
        assert not unrun, f"{len(unrun)} jobs are said to be done and never ran: {_few(unrun)}"
        again = {id_: times - 1 for id_, times in runs.items() if times > 1}
        deliveries = executions if received is None else received.runs()
        affected = [*self.in_flight_at_faults, *(fault.affected(deliveries) for fault in self.faults)]
        excused = Counter(id_ for in_flight in affected for id_ in in_flight)
        unexcused = {id_ for id_, times in again.items() if times > excused[id_]}
        assert not unexcused, f"{len(unexcused)} jobs ran again without a fault: {_few(unexcused)}"
        max_reruns = sum(len(in_flight) for in_flight in self.in_flight_at_faults)
        max_reruns += sum(fault.max_reruns for fault in self.faults)
        reruns = sum(again.values())
        assert reruns <= max_reruns, f"{reruns} ran again, {max_reruns} were in flight at most"
        if all_done:
            missing = self.confirmed - done
            assert not missing, f"{len(missing)} of {len(self.confirmed)} jobs aren't done: {_few(missing)}"
        return Totals(len(self.confirmed), len(done), len(dead), live, max(0, lost), reruns, max_reruns)

    def _done_by_results(self, backend: OrchestratorBackend, queue: str) -> set[str]:
        ended = {id_: backend.result(queue, id_) for id_ in self.confirmed}
        return {id_ for id_, result in ended.items() if result and result.status is ResultStatus.DONE}


class Totals(NamedTuple):
    """The figures of an audit."""

    confirmed: int
    done: int
    dead: int
    live: int
    lost: int
    ran_again: int
    in_flight: int
    """How many jobs might have run again: at most those in flight at the faults."""


def _few(ids: Iterable[str] | Collection[str]) -> str:
    return ", ".join(sorted(ids)[:5])
