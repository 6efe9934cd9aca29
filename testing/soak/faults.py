"""Inject faults into the workers and the broker of a soak, and tell which jobs may run again for them."""

import random
import time
from collections.abc import Sequence
from typing import NamedTuple

from job_audit import Execution

from .environment import PREFETCH, Environment, SoakProcess
from .jobs import LEASE_S

_REFUSALS = 0.1
"""The part of the faults that have the server refuse what writes."""


class Fault(NamedTuple):
    """A fault and the workers that it hit; none, if it should cost nothing."""

    what: str
    pids: frozenset[int]
    after: int
    """How many executions were recorded before it."""
    stopped: frozenset[int] = frozenset()
    """The processes that it has stand still for a while."""

    def in_flight(self, runs: Sequence[Execution]) -> set[str]:
        """Return the jobs that it may have hit: the last that each worker began, and its next."""
        hit: set[str] = set()
        for pid in self.pids:
            before = [run.job_id for run in runs[: self.after] if run.pid == pid]
            then = [run.job_id for run in runs[self.after :] if run.pid == pid]
            hit |= {*before[-2 * PREFETCH :], *then[:PREFETCH]}
        return hit


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
        self._next_restart = time.monotonic() + 10.0
        self._refuses_until: float | None = None
        """When the server, which refuses what writes, is to take it again."""
        self.faults: list[Fault] = []

    def inject_due(self) -> None:
        """Inject the faults that are due, and check on every process."""
        now = time.monotonic()
        self._leaving = [process for process in self._leaving if not process.has_ended()]
        for process in (self.undisturbed, *self._disturbed):
            process.has_ended()
        self._continue(now)
        if self._refuses_until is not None:
            if now >= self._refuses_until:
                self._end_refusals()
        elif self._environment.server is not None and now >= self._next_restart:
            self._restart()
            self._next_restart = time.monotonic() + self._rng.uniform(20.0, 40.0)
            return
        if now >= self._next_fault:
            if self._refuses_until is None and self._rng.random() < _REFUSALS:
                self._begin_refusals()
            else:
                self._disturb_a_worker(now)
            self._next_fault = now + self._rng.uniform(0.5, 4.0)

    def resume_all(self) -> None:
        """Resume every stopped worker, and end refusals; inject nothing more."""
        self._continue(float("inf"))
        if self._refuses_until is not None:
            self._end_refusals()

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

    def _restart(self) -> None:
        server, what = self._environment.server, self._rng.choice(("restart", "crash"))
        assert server is not None
        self._note(f"broker {what}", [self.undisturbed, *self._disturbed, *self._leaving])
        if what == "crash":
            server.kill()
            time.sleep(self._rng.uniform(0.0, 2.0))
            server.start()
        else:
            server.restart()

    def _begin_refusals(self) -> None:
        refuse = self._environment.refuse
        if refuse is None:
            return
        refuse(True)
        hit = (
            [self.undisturbed, *self._disturbed, *self._leaving]
            if self._environment.refusals_may_cost
            else []
        )
        self._note("writes refused", hit)
        self._refuses_until = time.monotonic() + self._rng.uniform(1.0, 2 * LEASE_S)

    def _end_refusals(self) -> None:
        assert self._environment.refuse is not None
        self._environment.refuse(False)
        self._refuses_until = None

    def _continue(self, now: float) -> None:
        due = [process for until, process in self._stopped if until <= now]
        self._stopped = [(until, process) for until, process in self._stopped if until > now]
        for process in due:
            process.resume()

    def _note(self, what: str, hit: Sequence[SoakProcess]) -> None:
        fault = Fault(what, frozenset(process.pid for process in hit), len(self._environment.started))
        self.faults.append(fault)
        when = time.strftime("%H:%M:%S")
        with (self._environment.folder / "faults").open("a") as log:  # to be read if something is found
            print(when, what, *sorted(fault.pids), "after", fault.after, "runs", file=log)
