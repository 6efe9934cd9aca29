"""The account of a test with faults: where every job went, and how often it ran."""

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mindtrace.jobs import OrchestratorBackend
from mindtrace.jobs.ports import ResultStatus


class Run(NamedTuple):
    """One execution of a job: where, and which."""

    pid: int
    job_id: str


class Record:
    """Every execution, written down before the work is done, in one file for all processes.

    One write per line in append mode: no kill can tear a line or take one back.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def writer(self) -> int:
        """Open it to write to."""
        return os.open(self.path, os.O_WRONLY | os.O_APPEND)

    @staticmethod
    def write(descriptor: int, job_id: str) -> None:
        """Note that a job is run by this process."""
        os.write(descriptor, f"{os.getpid()} {job_id}\n".encode())

    def runs(self) -> list[Run]:
        """Every execution so far, in order."""
        lines = (line.split() for line in self.path.read_text("utf-8").splitlines())
        return [Run(int(pid), job_id) for pid, job_id in lines]

    def __len__(self) -> int:
        return self.path.read_bytes().count(b"\n")


class Fault(NamedTuple):
    """Harm done to workers, and the part of the record of what they received in which that was."""

    pids: frozenset[int]
    began: int
    """How many lines there were before."""
    ended: int
    """How many there were after."""
    in_hand: int
    """How many jobs each of the workers may have received and not settled, at any one time."""

    def window(self, runs: list[Run]) -> set[str]:
        """The jobs that may have been in hand of a worker which was hit.

        That is what it received last before, what it did during the harm, and, as it may be noted a moment
        late, what it received next. A job needn't have been started to run twice: to give one back, RabbitMQ
        is sent a copy before the original is acknowledged.
        """
        ids: set[str] = set()
        for pid in self.pids:
            mine = [(place, job_id) for place, (of, job_id) in enumerate(runs) if of == pid]
            before = [job_id for place, job_id in mine if place < self.began]
            after = [job_id for place, job_id in mine if place >= self.ended]
            ids.update(before[len(before) - self.in_hand :], after[: self.in_hand])
            ids.update(job_id for place, job_id in mine if self.began <= place < self.ended)
        return ids

    @property
    def most(self) -> int:
        """How many jobs it may cause to run again."""
        return len(self.pids) * self.in_hand


@dataclass(slots=True)
class Account:
    """What a test published, and what was in hand when it did harm."""

    confirmed: set[str] = field(default_factory=set)
    """Ids that were answered ACCEPTED or DUPLICATE."""
    unconfirmed: set[str] = field(default_factory=set)
    """Ids that may or may not be in the queue."""
    at_fault: list[set[str]] = field(default_factory=list)
    """The ids that were in hand, once for each fault."""
    faults: list[Fault] = field(default_factory=list)
    """The same where only the record tells what was in hand."""
    dropped: int = 0
    """How many jobs were dropped on request, by a purge or a discard."""

    def check(
        self,
        backend: OrchestratorBackend,
        queue: str,
        record: Record,
        finished: Record | None = None,
        received: Record | None = None,
        *,
        all_done: bool = True,
    ) -> "Totals":
        """Demand that the account adds up, and return its figures.

        Every confirmed job is done, dead, ready, delayed, in flight or dropped on request; nothing ran that
        wasn't published; a job ran once more than once only for each fault at which it was in hand.

        Args:
            backend: Where to look.
            queue: Where they were published.
            record: Where every execution was written down before the work.
            finished: Where each was once the work was done. That tells what is done where a backend keeps
                no results, once no job is left that could run again.
            received: Where what each worker received was written down, for :attr:`faults`; else ``record``.
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
        hands = executions if received is None else received.runs()
        windows = [*self.at_fault, *(fault.window(hands) for fault in self.faults)]
        excused = Counter(id_ for in_hand in windows for id_ in in_hand)
        unexcused = {id_ for id_, times in again.items() if times > excused[id_]}
        assert not unexcused, f"{len(unexcused)} jobs ran again without a fault: {_few(unexcused)}"
        most = sum(len(in_hand) for in_hand in self.at_fault) + sum(fault.most for fault in self.faults)
        assert sum(again.values()) <= most, f"{sum(again.values())} ran again, {most} were in hand at most"
        if all_done:
            missing = self.confirmed - done
            assert not missing, f"{len(missing)} of {len(self.confirmed)} jobs aren't done: {_few(missing)}"
        return Totals(
            len(self.confirmed), len(done), len(dead), live, max(0, lost), sum(again.values()), most
        )

    def _done_by_results(self, backend: OrchestratorBackend, queue: str) -> set[str]:
        ended = {id_: backend.result(queue, id_) for id_ in self.confirmed}
        return {id_ for id_, result in ended.items() if result and result.status is ResultStatus.DONE}


class Totals(NamedTuple):
    """The figures of an account."""

    confirmed: int
    done: int
    dead: int
    live: int
    lost: int
    ran_again: int
    in_hand: int
    """How many might have run again: what was in hand at the faults, at most."""


def _few(ids: Iterable[str] | Collection[str]) -> str:
    return ", ".join(sorted(ids)[:5])
