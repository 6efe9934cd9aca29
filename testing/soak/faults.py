"""What a soak does to its workers and its broker, and which jobs that excuses from running once."""

import random
import signal
import time
from collections.abc import Sequence
from typing import NamedTuple

from brokers.account import Run

from .errands import LEASE_S
from .stage import PREFETCH, Actor, Stage


class Fault(NamedTuple):
    """Harm done to some workers; to none, where it should cost nothing."""

    what: str
    pids: frozenset[int]
    after: int
    """How many runs there had been."""

    def in_hand(self, runs: Sequence[Run]) -> set[str]:
        """The jobs that it may have hit: those each worker began last, and those it had in hand to begin."""
        hit: set[str] = set()
        for pid in self.pids:
            before = [run.job_id for run in runs[: self.after] if run.pid == pid]
            then = [run.job_id for run in runs[self.after :] if run.pid == pid]
            hit |= {*before[-2 * PREFETCH :], *then[:PREFETCH]}
        return hit


class Troublemaker:
    """Kills, stops and restarts at random, and keeps so many workers at work."""

    def __init__(self, stage: Stage, chance: random.Random, mortals: int) -> None:
        self._stage = stage
        self._chance = chance
        self.steady = stage.worker()
        self._mortals = [stage.worker() for _ in range(mortals)]
        self._leaving: list[Actor] = []
        self._stopped: list[tuple[float, Actor]] = []
        self._next_fault = time.monotonic() + 3.0
        self._next_restart = time.monotonic() + 10.0
        self.faults: list[Fault] = []

    def turn(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        self._leaving = [actor for actor in self._leaving if not actor.has_ended()]
        for actor in (self.steady, *self._mortals):
            actor.has_ended()
        self._continue(now)
        if self._stage.server is not None and now >= self._next_restart:
            self._restart()
            self._next_restart = time.monotonic() + self._chance.uniform(20.0, 40.0)
        elif now >= self._next_fault:
            self._harm(now)
            self._next_fault = now + self._chance.uniform(0.5, 4.0)

    def end(self) -> None:
        """Let everybody go on, and leave it at that."""
        self._continue(float("inf"))

    def dismiss(self) -> None:
        """Have every worker stop, and wait until each did so properly."""
        self._leaving += [self.steady, *self._mortals]
        for actor in self._leaving:
            if actor.told_to_stop_at is None:
                actor.stop()
        while self._leaving:
            self._leaving = [actor for actor in self._leaving if not actor.has_ended()]
            time.sleep(0.05)

    def _harm(self, now: float) -> None:
        awake = [actor for actor in self._mortals if all(actor is not other for _, other in self._stopped)]
        if not awake:
            return
        victim = self._chance.choice(awake)
        (what,) = self._chance.choices(
            ("kill", "stop briefly", "stop past the lease", "terminate"), (4, 2, 2, 3)
        )
        match what:
            case "kill":
                victim.kill()
                self._replace(victim)
            case "terminate":
                victim.stop()
                self._leaving.append(victim)
                self._replace(victim)
            case _:
                victim.process.send_signal(signal.SIGSTOP)
                sleep_s = 1.0 if what == "stop briefly" else 2 * LEASE_S
                self._stopped.append((now + sleep_s, victim))
        match what:
            case "stop past the lease" if self._stage.is_locked():
                # A stopped process that holds the lock keeps the others from extending their leases.
                self._note(f"{what}, with the file locked", [self.steady, *self._mortals, *self._leaving])
            case "kill" | "stop past the lease":
                self._note(what, [victim])
            case _:  # it must cost nothing
                self._note(what, [])

    def _replace(self, victim: Actor) -> None:
        self._mortals.remove(victim)
        self._mortals.append(self._stage.worker())

    def _restart(self) -> None:
        server, what = self._stage.server, self._chance.choice(("restart", "crash"))
        assert server is not None
        self._note(f"broker {what}", [self.steady, *self._mortals, *self._leaving])
        if what == "crash":
            server.kill()
            time.sleep(self._chance.uniform(0.0, 2.0))
            server.start()
        else:
            server.restart()

    def _continue(self, now: float) -> None:
        due = [actor for until, actor in self._stopped if until <= now]
        self._stopped = [(until, actor) for until, actor in self._stopped if until > now]
        for actor in due:
            actor.process.send_signal(signal.SIGCONT)

    def _note(self, what: str, hit: Sequence[Actor]) -> None:
        self.faults.append(Fault(what, frozenset(actor.pid for actor in hit), len(self._stage.started)))
