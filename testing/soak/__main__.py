"""Work for minutes under kills, stops and restarts; then demand that all adds up and that nothing grew.

    PYTHONPATH=testing .venv/bin/python -m soak --minutes 5 --seed 1 redis

Each backend is private: a file, or a server of its own. There are a publisher, a worker that is never harmed,
and others that are. At the end every job must be done or dead, and may have run more often than planned only
where a fault may have hit it; and neither the publisher nor the unharmed worker may hold more than before, by
the rule in `vitals`.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from brokers.account import Account, Totals
from mindtrace.jobs import OrchestratorBackend, PublishStatus, QueueCounts
from mindtrace.jobs.application.backends import detect_backend
from mindtrace.jobs.domain.errors import BackendUnavailable

from .errands import SCHEMA
from .faults import Troublemaker
from .publisher import read
from .stage import STAGES, Actor, SoakFailed, Stage
from .vitals import ALLOWED, Course, Vitals

QUEUE = SCHEMA.name
_MORTALS = 3
_CONFIRMED = (PublishStatus.ACCEPTED, PublishStatus.DUPLICATE)
_ALL = 10**6
"""More dead letters than a soak makes."""
_TICK_S = 0.05
_START_S = 60.0
_DRAIN_S = 300.0
"""How long what is left may take when the faults are over."""
_TELLING_S = 60.0
"""A run that is shorter tells nothing of growth: on a busy machine its processes warm up all the while."""


class Soak:
    """A soak on one backend."""

    def __init__(self, name: str, stage: Stage, seed: int) -> None:
        self._name = name
        self._stage = stage
        self._trouble = Troublemaker(stage, random.Random(f"{seed} {name}"), _MORTALS)
        self._publisher = stage.publisher(seed)
        self._samples: dict[str, list[Vitals]] = {"publisher": [], "worker": []}

    def run(self, seconds: float) -> list[str]:
        """Work, print how it goes, and return what is wrong at the end."""
        self._wait_until_at_work()
        next_sample = next_word = began = time.monotonic()
        with detect_backend(self._stage.url) as backend:
            while (now := time.monotonic()) < began + seconds:
                self._trouble.turn()
                self._publisher.has_ended()
                if now >= next_sample:
                    self._sample()
                    next_sample = now + min(1.0, seconds / 20)
                if now >= next_word:
                    self._say(now - began, backend)
                    next_word = now + 15.0
                time.sleep(_TICK_S)
            self._publisher.stop()
            self._trouble.end()
            wait_for_end(self._publisher)
            self._drain(backend)
            self._trouble.dismiss()
            return [*self._settle_account(backend), *(self._judge() if seconds >= _TELLING_S else [])]

    def _wait_until_at_work(self) -> None:
        """Have those that are sampled begin: what a start takes is no growth."""
        give_up = time.monotonic() + _START_S
        while all(run.pid != self._trouble.steady.pid for run in self._stage.started.runs()):
            self._publisher.has_ended()
            if self._trouble.steady.has_ended() or time.monotonic() > give_up:
                raise SoakFailed(f"the worker has run nothing in {_START_S:g} s")
            time.sleep(_TICK_S)

    def _sample(self) -> None:
        for what, actor in (("publisher", self._publisher), ("worker", self._trouble.steady)):
            self._samples[what].append(Vitals.of(actor.pid))

    def _say(self, elapsed_s: float, backend: OrchestratorBackend) -> None:
        try:
            counts = backend.counts(QUEUE)
        except (BackendUnavailable, LookupError):
            return
        print(
            f"{self._name} {elapsed_s:4.0f} s: {len(self._stage.started)} runs, {counts.waiting} wait, "
            f"{counts.dead} dead, {len(self._trouble.faults)} faults",
            flush=True,
        )

    def _drain(self, backend: OrchestratorBackend) -> None:
        give_up = time.monotonic() + _DRAIN_S
        while (counts := backend.counts(QUEUE)).waiting or self._in_flight(backend, counts):
            if time.monotonic() > give_up:
                raise SoakFailed(f"{_DRAIN_S:g} s after the last fault there are still {counts}")
            time.sleep(0.2)

    def _in_flight(self, backend: OrchestratorBackend, counts: QueueCounts) -> int:
        if counts.in_flight is not None:
            return counts.in_flight
        ended = {run.job_id for run in self._stage.finished.runs()}
        ended |= {letter.id for letter in backend.dead_letters(QUEUE, limit=_ALL)}
        return len({each.id for each in read(self._stage.ledger) if each.status in _CONFIRMED} - ended)

    def _settle_account(self, backend: OrchestratorBackend) -> list[str]:
        published, runs = read(self._stage.ledger), self._stage.started.runs()
        account = Account(
            confirmed={each.id for each in published if each.status in _CONFIRMED},
            unconfirmed={each.id for each in published if each.status not in _CONFIRMED},
        )
        most = max(each.attempts for each in published)
        account.at_fault = [
            {each.id for each in published if each.attempts > attempt} for attempt in range(1, most)
        ]
        for fault in self._trouble.faults:
            account.at_fault += [fault.in_hand(runs)] * self._stage.runs_a_fault_may_cost
        try:
            totals = account.check(backend, QUEUE, self._stage.started, self._stage.finished, all_done=False)
        except AssertionError as error:
            return [str(error)]
        self._print(totals, account)
        return [f"{totals.live} jobs have come to no end"] if totals.live else []

    def _print(self, totals: Totals, account: Account) -> None:
        kinds = Counter(fault.what for fault in self._trouble.faults)
        faults = ", ".join(f"{count} x {what}" for what, count in kinds.most_common()) or "none"
        print(
            f"{self._name}: {totals.confirmed} confirmed, {totals.done} done, {totals.dead} dead, "
            f"{totals.lost} lost, {totals.ran_again} runs beyond the first; "
            f"{len(account.unconfirmed)} unconfirmed; faults: {faults}"
        )

    def _judge(self) -> list[str]:
        wrong = []
        print(f"{self._name:10}{'':12}" + "".join(f"{name:>24}" for name in Vitals._fields))
        for what, samples in self._samples.items():
            course = Course.of(samples)
            columns = (f"{before:.1f} -> {after:.1f}" for before, after in zip(*course, strict=True))
            print(f"{'':10}{what:12}" + "".join(f"{column:>24}" for column in columns))
            wrong += [f"the {what} holds more and more: {name}" for name in course.grown]
        print(f"{'':10}{'may grow by':12}" + "".join(f"{allowed:>24}" for allowed in ALLOWED))
        return wrong


def wait_for_end(actor: Actor) -> None:
    """Wait until a process that was told to stop has done so."""
    while not actor.has_ended():
        time.sleep(_TICK_S)


def soak(name: str, seconds: float, seed: int) -> list[str]:
    """Soak one backend, and return what is wrong."""
    with (
        tempfile.TemporaryDirectory(prefix="mindtrace-jobs-soak-") as folder,
        STAGES[name](Path(folder)) as stage,
    ):
        try:
            return Soak(name, stage, seed).run(seconds)
        except SoakFailed as failure:
            return [str(failure)]


def main() -> None:
    """Soak each backend in turn."""
    parser = argparse.ArgumentParser(prog="soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("backends", nargs="*", help=f"of {', '.join(STAGES)}; all by default")
    parser.add_argument("--minutes", type=float, default=10.0, help="in all, shared between the backends")
    parser.add_argument(
        "--seed", type=int, default=None, help="what faults, and jobs of what kinds, to choose"
    )
    options = parser.parse_args()
    backends = options.backends or list(STAGES)
    if unknown := set(backends) - set(STAGES):
        parser.error(f"no backend {', '.join(sorted(unknown))}: choose of {', '.join(STAGES)}")
    seed = random.randrange(10**6) if options.seed is None else options.seed
    wrong = False
    for name in backends:
        seconds = options.minutes * 60 / len(backends)
        findings = soak(name, seconds, seed)
        good = "nothing lost, nothing grew" if seconds >= _TELLING_S else "nothing lost"
        print(f"{name}, seed {seed}: {'; '.join(findings) or good}", flush=True)
        wrong |= bool(findings)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
