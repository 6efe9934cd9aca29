"""Work for minutes under kills, stops and restarts; then demand that all adds up and that nothing grew.

    PYTHONPATH=testing .venv/bin/python -m soak --minutes 5 --seed 1 redis

Each backend is private: a file, a server of its own, or a cluster with ``--clusters``. There are a
publisher, a worker that is never harmed, and others that are. At the end every job must be done or dead, and
may have run more often than planned only where a fault may have hit it; and neither the publisher nor the
unharmed worker may hold more than before, by the rule in `resource_usage`.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from job_audit import JobAudit, Totals
from mindtrace.jobs import Orchestrator, OrchestratorBackend, PublishStatus, QueueCounts
from mindtrace.jobs.application.broker.backends import detect_backend
from mindtrace.jobs.domain.errors import BackendUnavailable

from .clusters import CLUSTERS
from .coordinated import SCHEDULE, Line, Log, figures, find_faults, has_begun, longest_standstill_s
from .environment import ENVIRONMENTS, Environment, SoakFailed, SoakProcess, StartEnvironment
from .faults import FaultInjector
from .jobs import SCHEMA
from .publisher import read_log
from .resource_usage import ALLOWED, ResourceUsage, UsageTrend
from .sharing import SharingWorker

QUEUE = SCHEMA.name
_DISTURBED_WORKERS = 3
_CONFIRMED = (PublishStatus.ACCEPTED, PublishStatus.DUPLICATE)
_ALL = 10**6
"""More dead letters than a soak makes."""
_TICK_S = 0.05
_START_S = 120.0
_DRAIN_S = 300.0
"""How long what is left may take when the faults are over."""
_KEPT = Path("build/soak")
"""Where the logs of a soak go that found something."""
_MOST_BYTES = 64 * 1024 * 1024
"""The largest of them."""
_MIN_S_FOR_GROWTH = 60.0
"""A run that is shorter tells nothing of growth: on a busy machine its processes warm up all the while."""


class Soak:
    """A soak on one backend."""

    def __init__(self, name: str, environment: Environment, seed: int) -> None:
        self._name = name
        self._environment = environment
        self._injector = FaultInjector(environment, random.Random(f"{seed} {name}"), _DISTURBED_WORKERS)
        self._publisher = environment.publisher(seed)
        self._sharing = SharingWorker(environment, random.Random(f"{seed} {name} sharing"))
        self._samples: dict[str, list[ResourceUsage]] = {"publisher": [], "worker": []}

    def run(self, seconds: float) -> list[str]:
        """Work, print how it goes, and return what is wrong at the end."""
        self._wait_until_at_work()
        next_sample = next_progress = began = time.monotonic()
        with detect_backend(self._environment.url) as backend, self._sharing:
            while (now := time.monotonic()) < began + seconds:
                self._injector.inject_due()
                self._publisher.has_ended()
                if now >= next_sample:
                    self._sample()
                    next_sample = now + min(1.0, seconds / 20)
                if now >= next_progress:
                    self._print_progress(now - began, backend)
                    next_progress = now + 15.0
                time.sleep(_TICK_S)
            self._publisher.stop()
            self._injector.resume_all()
            wait_for_end(self._publisher)
            self._drain(backend)
            beside = [*self._sharing.end(), *self._audit_coordinated()]
            self._injector.stop_workers()
            return [
                *self._audit(backend),
                *beside,
                *(self._find_growth() if seconds >= _MIN_S_FOR_GROWTH else []),
            ]

    def _wait_until_at_work(self) -> None:
        """Have those that are sampled begin: what a start takes is no growth."""
        give_up = time.monotonic() + _START_S
        pid, log = self._injector.undisturbed.pid, Log(self._environment.folder)
        while all(run.pid != pid for run in self._environment.started.runs()) or not has_begun(
            log.lines(), pid
        ):
            self._publisher.has_ended()
            if self._injector.undisturbed.has_ended() or time.monotonic() > give_up:
                raise SoakFailed(f"the worker has run nothing in {_START_S:g} s")
            time.sleep(_TICK_S)

    def _sample(self) -> None:
        for what, process in (("publisher", self._publisher), ("worker", self._injector.undisturbed)):
            self._samples[what].append(ResourceUsage.of(process.pid))

    def _print_progress(self, elapsed_s: float, backend: OrchestratorBackend) -> None:
        try:
            counts = backend.counts(QUEUE)
        except (BackendUnavailable, LookupError):
            return
        print(
            f"{self._name} {elapsed_s:4.0f} s: {len(self._environment.started)} runs, {counts.waiting} wait, "
            f"{counts.dead} dead, {len(self._injector.faults)} faults",
            flush=True,
        )

    def _drain(self, backend: OrchestratorBackend) -> None:
        give_up = time.monotonic() + _DRAIN_S
        while (counts := backend.counts(QUEUE)).waiting or self._in_flight(backend, counts):
            if time.monotonic() > give_up:
                raise SoakFailed(f"{_DRAIN_S:g} s after the last fault there are still {counts}")
            time.sleep(0.2)

    def _audit_coordinated(self) -> list[str]:
        """Wait for what was done beside the jobs, and return what is wrong with it."""
        log, give_up = Log(self._environment.folder), time.monotonic() + _DRAIN_S
        with Orchestrator(self._environment.coordinated_url) as jobs:
            jobs.schedules.pause(SCHEDULE)
            (schedule,) = jobs.schedules.list()
        stopped = frozenset(pid for fault in self._injector.faults for pid in fault.stopped)
        while wrong := find_faults(lines := log.lines(), log, schedule.last_slot, stopped):
            if time.monotonic() > give_up or not any(
                "never ran" in each or "slots" in each for each in wrong
            ):
                return wrong
            time.sleep(0.5)
        print(f"{self._name}: {figures(lines, log)}")
        self._print_standstills(lines)
        return []

    def _print_standstills(self, lines: Sequence[Line]) -> None:
        """Say for how long work stood still after each fault of the servers, until the next of them."""
        kinds = {fault.what for fault in self._environment.server_faults}
        faults = [fault for fault in self._injector.faults if fault.what in kinds]
        moments = [*(fault.moment for fault in faults), max(line.moment for line in lines)]
        stood = [
            f"{longest_standstill_s(lines, fault.moment, end):.1f} s after {fault.what}"
            for fault, end in zip(faults, moments[1:], strict=True)
        ]
        print(f"{self._name}: stood still for at most {', '.join(stood) or 'no time'}")

    def _in_flight(self, backend: OrchestratorBackend, counts: QueueCounts) -> int:
        if counts.in_flight is not None:
            return counts.in_flight
        ended = {run.job_id for run in self._environment.finished.runs()}
        ended |= {letter.id for letter in backend.dead_letters(QUEUE, limit=_ALL)}
        return len(
            {each.id for each in read_log(self._environment.publish_log) if each.status in _CONFIRMED} - ended
        )

    def _audit(self, backend: OrchestratorBackend) -> list[str]:
        published, runs = read_log(self._environment.publish_log), self._environment.started.runs()
        audit = JobAudit(
            confirmed={each.id for each in published if each.status in _CONFIRMED},
            unconfirmed={each.id for each in published if each.status not in _CONFIRMED},
        )
        most = max(each.attempts for each in published)
        audit.in_flight_at_faults = [
            {each.id for each in published if each.attempts > attempt} for attempt in range(1, most)
        ]
        for fault in self._injector.faults:
            audit.in_flight_at_faults += [fault.in_flight(runs)] * self._environment.runs_a_fault_may_cost
        try:
            totals = audit.check(
                backend, QUEUE, self._environment.started, self._environment.finished, all_done=False
            )
        except AssertionError as error:
            return [str(error)]
        self._print(totals, audit)
        return [f"{totals.live} jobs have come to no end"] if totals.live else []

    def _print(self, totals: Totals, audit: JobAudit) -> None:
        kinds = Counter(fault.what for fault in self._injector.faults)
        faults = ", ".join(f"{count} x {what}" for what, count in kinds.most_common()) or "none"
        print(
            f"{self._name}: {totals.confirmed} confirmed, {totals.done} done, {totals.dead} dead, "
            f"{totals.lost} lost, {totals.ran_again} runs beyond the first; "
            f"{len(audit.unconfirmed)} unconfirmed; faults: {faults}"
        )

    def _find_growth(self) -> list[str]:
        wrong = []
        print(f"{self._name:10}{'':12}" + "".join(f"{name:>24}" for name in ResourceUsage._fields))
        for what, samples in self._samples.items():
            trend = UsageTrend.of(samples)
            columns = (f"{before:.1f} -> {after:.1f}" for before, after in zip(*trend, strict=True))
            print(f"{'':10}{what:12}" + "".join(f"{column:>24}" for column in columns))
            wrong += [f"the {what} holds more and more: {name}" for name in trend.grown]
        print(f"{'':10}{'may grow by':12}" + "".join(f"{allowed:>24}" for allowed in ALLOWED))
        return wrong


def wait_for_end(process: SoakProcess) -> None:
    """Wait until a process that was told to stop has done so."""
    while not process.has_ended():
        time.sleep(_TICK_S)


def soak(name: str, start: StartEnvironment, seconds: float, seed: int) -> list[str]:
    """Soak one backend, and return what is wrong."""
    with (
        tempfile.TemporaryDirectory(prefix="mindtrace-jobs-soak-") as folder,
        start(Path(folder)) as environment,
    ):
        try:
            findings = Soak(name, environment, seed).run(seconds)
        except SoakFailed as failure:
            findings = [str(failure)]
        if findings:
            findings.append(f"{_keep(Path(folder), f'{name}-{seed}')} has the logs of its processes")
        return findings


def _keep(folder: Path, name: str) -> Path:
    """Copy the records and logs of a soak to where they can be read, and return where that is."""
    kept = _KEPT / name
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for file in folder.iterdir():
        if file.is_file() and file.stat().st_size <= _MOST_BYTES:
            shutil.copy(file, kept)
    return kept


def main() -> None:
    """Soak each backend in turn."""
    parser = argparse.ArgumentParser(prog="soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("backends", nargs="*", help=f"of {', '.join(ENVIRONMENTS)}; all by default")
    parser.add_argument("--clusters", action="store_true", help=f"of {', '.join(CLUSTERS)}, their clusters")
    parser.add_argument("--minutes", type=float, default=10.0, help="in all, shared between the backends")
    parser.add_argument(
        "--seed", type=int, default=None, help="what faults, and jobs of what kinds, to choose"
    )
    options = parser.parse_args()
    known = CLUSTERS if options.clusters else ENVIRONMENTS
    backends = options.backends or list(known)
    if unknown := set(backends) - set(known):
        parser.error(f"no backend {', '.join(sorted(unknown))}: choose of {', '.join(known)}")
    seed = random.randrange(10**6) if options.seed is None else options.seed
    wrong = False
    for name in backends:
        seconds = options.minutes * 60 / len(backends)
        findings = soak(name, known[name], seconds, seed)
        good = "nothing lost, nothing grew" if seconds >= _MIN_S_FOR_GROWTH else "nothing lost"
        print(f"{name}, seed {seed}: {'; '.join(findings) or good}", flush=True)
        wrong |= bool(findings)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
