"""Inject faults into the workers and the broker of a soak, and tell which jobs may run again for them."""

import random
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from job_audit import Execution

from .environment import PREFETCH, Environment, ServerFault, SoakProcess
from .jobs import LEASE_S

_BETWEEN_SERVER_FAULTS_S = (10.0, 20.0)


class Fault(NamedTuple):
    """A fault and the workers that it hit; none, if it should cost nothing."""

    what: str
    pids: frozenset[int]
    after: int
    """How many executions were recorded before it."""
    since: int | None = None
    """How many there were when the servers began to suffer what they suffered then, if they did."""
    moment: float = 0.0
    """When it was, by the machine's monotonic clock."""
    stopped: frozenset[int] = frozenset()
    """The processes that it has stand still for a while."""

    def in_flight(self, runs: Sequence[Execution]) -> set[str]:
        """Return the jobs that it may have hit: the last that each worker began, and its next.

        Those are more while the servers suffer something: a worker may work, and settle nothing.
        """
        hit: set[str] = set()
        for pid in self.pids:
            if self.since is not None:
                hit |= {run.job_id for run in runs[self.since : self.after] if run.pid == pid}
            before = [run.job_id for run in runs[: self.after] if run.pid == pid]
            then = [run.job_id for run in runs[self.after :] if run.pid == pid]
            hit |= {*before[-2 * PREFETCH :], *then[:PREFETCH]}
        return hit


class _Present(NamedTuple):
    """What the servers suffer now."""

    happening: AbstractContextManager[object]
    until: float
    after: int
    """How many executions were recorded before it."""


class FaultInjector:
    """Kills, stops and restarts processes at random, and replaces the workers that end."""

    def __init__(self, environment: Environment, rng: random.Random, disturbed: int) -> None:
        self._environment = environment
        self._rng = rng
        self.undisturbed = environment.worker()
        self._disturbed = [environment.worker() for _ in range(disturbed)]
        self._leaving: list[SoakProcess] = []
        self._stopped: list[tuple[float, SoakProcess]] = []
        self._next_fault = time.monotonic() + 3.0
        self._next_server_fault = time.monotonic() + 10.0
        self._round: list[ServerFault] = []
        """What the servers have still to suffer, before they suffer each fault once more."""
        self._present: _Present | None = None
        self.faults: list[Fault] = []

    def inject_due(self) -> None:
        """Inject the faults that are due, and check on every process."""
        now = time.monotonic()
        self._leaving = [process for process in self._leaving if not process.has_ended()]
        for process in (self.undisturbed, *self._disturbed):
            process.has_ended()
        self._continue(now)
        if self._present is not None:
            if now >= self._present.until:
                self._end_server_fault()
        elif self._environment.server_faults and now >= self._next_server_fault:
            self._begin_server_fault()
            return
        if now >= self._next_fault:
            self._disturb_a_worker(now)
            self._next_fault = now + self._rng.uniform(0.5, 4.0)

    def resume_all(self) -> None:
        """Resume every stopped worker, and end what the servers suffer; inject nothing more."""
        self._continue(float("inf"))
        if self._present is not None:
            self._end_server_fault()

    def stop_workers(self) -> None:
        """Have every worker stop, and wait until each did so properly."""
        self._leaving += [self.undisturbed, *self._disturbed]
        for process in self._leaving:
            if process.told_to_stop_at is None:
                process.stop()
        while self._leaving:
            self._leaving = [process for process in self._leaving if not process.has_ended()]
            time.sleep(0.05)

    def _disturb_a_worker(self, now: float) -> None:
        awake = [
            process for process in self._disturbed if all(process is not other for _, other in self._stopped)
        ]
        if not awake:
            return
        victim = self._rng.choice(awake)
        (what,) = self._rng.choices(
            ("kill", "stop briefly", "stop past the lease", "terminate", "interrupt"), (4, 2, 2, 3, 3)
        )
        if what == "interrupt" and not victim.is_up:  # it would not be ready for the signal
            return
        match what:
            case "kill":
                victim.kill()
                self._replace(victim)
            case "terminate":
                victim.stop()
                self._leaving.append(victim)
                self._replace(victim)
            case "interrupt":
                victim.interrupt()
            case _:
                victim.pause()
                sleep_s = 1.0 if what == "stop briefly" else 2 * LEASE_S
                self._stopped.append((now + sleep_s, victim))
        match what:
            case "stop past the lease" if self._environment.is_locked():
                # A stopped process that holds the lock keeps the others from extending their leases.
                self._note(
                    f"{what}, with the file locked", [self.undisturbed, *self._disturbed, *self._leaving]
                )
            case "kill" | "stop past the lease" | "interrupt":
                self._note(what, [victim])
            case _:  # it must cost nothing
                self._note(what, [])
        if "stop" in what:
            self.faults[-1] = self.faults[-1]._replace(stopped=frozenset([victim.pid]))

    def _replace(self, victim: SoakProcess) -> None:
        self._disturbed.remove(victim)
        self._disturbed.append(self._environment.worker())

    def _begin_server_fault(self) -> None:
        """Have the servers suffer what is next, each fault as often as another."""
        if not self._round:
            self._round = list(self._environment.server_faults)
            self._rng.shuffle(self._round)
        fault = self._round.pop()
        hit = [self.undisturbed, *self._disturbed, *self._leaving] if fault.may_cost else []
        self._note(fault.what, hit)
        happening, after = fault.happens(), len(self._environment.started)
        happening.__enter__()
        until = time.monotonic() + self._rng.uniform(*fault.lasts_s)
        self._present = _Present(happening, until, after)

    def _end_server_fault(self) -> None:
        assert self._present is not None
        self._present.happening.__exit__(None, None, None)
        self._present = None
        self._next_server_fault = time.monotonic() + self._rng.uniform(*_BETWEEN_SERVER_FAULTS_S)

    def _continue(self, now: float) -> None:
        due = [process for until, process in self._stopped if until <= now]
        self._stopped = [(until, process) for until, process in self._stopped if until > now]
        for process in due:
            process.resume()

    def _note(self, what: str, hit: Sequence[SoakProcess]) -> None:
        pids = frozenset(process.pid for process in hit)
        since = None if self._present is None else self._present.after
        fault = Fault(what, pids, len(self._environment.started), since, time.monotonic())
        self.faults.append(fault)
        when = time.strftime("%H:%M:%S")
        with (self._environment.folder / "faults").open("a") as log:  # to be read if something is found
            print(when, what, *sorted(fault.pids), "after", fault.after, "runs", file=log)
