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


@dataclass(slots=True)
class Account:
    """What a test published, and what was in hand when it did harm."""

    confirmed: set[str] = field(default_factory=set)
    """Ids that were answered ACCEPTED or DUPLICATE."""
    unconfirmed: set[str] = field(default_factory=set)
    """Ids that may or may not be in the queue."""
    at_fault: list[set[str]] = field(default_factory=list)
    """The ids that were in hand, once for each fault."""

    def check(
        self, backend: OrchestratorBackend, queue: str, record: Record, *, all_done: bool = True
    ) -> "Totals":
        """Demand that the account adds up, and return its figures.

        Every confirmed job is done, dead, ready, delayed or in flight; nothing ran that wasn't published; a
        job ran once more than once only for each fault at which it was in hand.
        """
        ended = {id_: backend.result(queue, id_) for id_ in self.confirmed}
        done = {id_ for id_, result in ended.items() if result and result.status is ResultStatus.DONE}
        dead = {id_ for id_, result in ended.items() if result and result.status is ResultStatus.FAILED}
        counts = backend.counts(queue)
        live = counts.waiting + (counts.in_flight or 0)
        lost = len(self.confirmed) - len(done) - len(dead) - live
        assert lost <= 0, f"{lost} of {len(self.confirmed)} jobs are lost"
        assert -lost <= len(self.unconfirmed), f"{-lost} jobs more than were published"
        assert counts.dead >= len(dead)

        runs = Counter(run.job_id for run in record.runs())
        strange = runs.keys() - self.confirmed - self.unconfirmed
        assert not strange, f"{len(strange)} jobs ran that were never published: {_few(strange)}"
        unrun = done - runs.keys()
        assert not unrun, f"{len(unrun)} jobs are said to be done and never ran: {_few(unrun)}"
        again = {id_: times - 1 for id_, times in runs.items() if times > 1}
        excused = Counter(id_ for in_hand in self.at_fault for id_ in in_hand)
        unexcused = {id_ for id_, times in again.items() if times > excused[id_]}
        assert not unexcused, f"{len(unexcused)} jobs ran again without a fault: {_few(unexcused)}"
        if all_done:
            missing = self.confirmed - done
            assert not missing, f"{len(missing)} of {len(self.confirmed)} jobs aren't done: {_few(missing)}"
        return Totals(len(self.confirmed), len(done), len(dead), live, sum(again.values()))


class Totals(NamedTuple):
    """The figures of an account."""

    confirmed: int
    done: int
    dead: int
    live: int
    ran_again: int


def _few(ids: Iterable[str] | Collection[str]) -> str:
    return ", ".join(sorted(ids)[:5])
