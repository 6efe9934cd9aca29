"""One experiment with what workers coordinate: limits, schedules, unique jobs and pauses; and its audits."""

import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from whole_lines import whole_lines

from conditions import LIMIT_S, eventually
from job_audit import Execution, ExecutionRecord, Fault, JobAudit, Totals
from mindtrace.jobs import JobSchema, Orchestrator, PublishStatus, job_from_schema
from mindtrace.jobs.domain.errors import BackendUnavailable
from mindtrace.jobs.ports import Place
from place_audit import PlaceLog

from ..coordinated_worker import CHAINED, GO, LIMIT, SCHEMAS, Files, Keyed, links_of
from .server_targets import ServerTarget
from .targets import ProcessTarget, Target

WORKER = Path(__file__).parents[1] / "coordinated_worker.py"
TESTING = Path(__file__).parents[2] / "testing"
"""Where the audits are that the worker writes for."""
IN_FLIGHT = 20
"""More jobs than a worker has received and not settled at any one time."""


class Published(NamedTuple):
    """A job that was confirmed, and when its publish began and ended by the clock of the machine."""

    id: str
    key: str
    began: float
    ended: float


class CoordinatedWorker:
    """``coordinated_worker.py`` as a process, which has begun to consume."""

    def __init__(self, url: str, schema: JobSchema, folder: Path, lease_s: float) -> None:
        words = [sys.executable, str(WORKER), url, schema.name, str(folder), str(lease_s)]
        environment = os.environ | {"PYTHONPATH": str(TESTING)}
        self._process = subprocess.Popen(
            words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def go(self) -> None:
        """Have the jobs that it runs end, and the later ones at once."""
        assert self._process.stdin is not None
        self._process.stdin.write(GO)
        self._process.stdin.flush()

    def kill(self) -> None:
        """End it with SIGKILL; a no-op where it has ended."""
        self._process.kill()
        self._process.communicate()

    def end(self) -> None:
        """Stop it with SIGTERM, as a supervisor does."""
        self._process.terminate()
        self._process.communicate(timeout=LIMIT_S)
        assert self._process.returncode == 0


def server_of(experiment: "CoordinatedExperiment") -> ServerTarget:
    """Return the server of an experiment, which keeps what it has confirmed when it dies."""
    target = experiment.target
    assert isinstance(target, ServerTarget)
    target.sync_metadata()
    return target


class CoordinatedExperiment:
    """Publishes and works off jobs that share a store while a test injects faults, and audits them.

    Args:
        target: The backend.
        folder: Where the workers write down what they do.
        stack: What is to be closed at the end.
    """

    def __init__(self, target: Target, folder: Path, stack: ExitStack) -> None:
        assert isinstance(target, ProcessTarget)
        self.target = target
        self.folder = folder
        self.namespace = f"c{time.monotonic_ns()}"
        self.url = target.url_with_store(self.namespace)
        self.files = Files.within(folder)
        self.started, self.finished = (
            ExecutionRecord(self.files.started),
            ExecutionRecord(self.files.finished),
        )
        self.audit = JobAudit()
        self.totals: Totals | None = None
        self.published: list[Published] = []
        self.duplicates = 0
        """How many publishes were answered with the job that stands in their place."""
        self._stack = stack
        self._workers: list[CoordinatedWorker] = []
        self.jobs = self.client()
        self.store = self.jobs.backend.coordination
        self._auditor = stack.enter_context(target.client(self.namespace))
        stack.callback(self._kill_workers)
        for schema in SCHEMAS.values():
            self.jobs.register(schema)

    def client(self) -> Orchestrator:
        """Connect another orchestrator, which is closed at the end."""
        return self._stack.enter_context(Orchestrator(self.url))

    # -- publishing -------------------------------------------------------------------------------

    def publish(self, schema: JobSchema, keys: list[str], *, by: Orchestrator | None = None) -> None:
        """Publish a job of each key, and note when, and which are confirmed."""
        for number, key in enumerate(keys):
            job = job_from_schema(schema, Keyed(key=key, number=number))
            began = time.monotonic()
            try:
                outcome = (by or self.jobs).publish_batch(schema.name, [job])[0].outcome
            except BackendUnavailable:  # nothing was sent
                continue
            if outcome.standing is not None:
                self.duplicates += 1
            elif outcome.status in (PublishStatus.ACCEPTED, PublishStatus.DUPLICATE):
                self.audit.confirmed.add(job.id)
                self.published.append(Published(job.id, key, began, time.monotonic()))
            elif outcome.status is PublishStatus.UNKNOWN:
                self.audit.unconfirmed.add(job.id)

    def expect_links(self) -> None:
        """Have the audit expect all jobs of the chains whose first one was published."""
        for ids in (self.audit.confirmed, self.audit.unconfirmed):
            ids |= {link for first in ids for link in links_of(first.partition(".")[0])}

    def slowest_publish_s(self) -> float:
        """Return how long the server took to answer at most."""
        return max(job.ended - job.began for job in self.published)

    @contextmanager
    def publishing(self, schema: JobSchema, keys: list[str], publishers: int) -> Iterator[None]:
        """Publish jobs of these keys all the time, by so many clients."""
        over, errors = threading.Event(), list[BaseException]()

        def publish(client: Orchestrator) -> None:
            try:
                while not over.wait(0.005):
                    self.publish(schema, keys, by=client)
            except BaseException as error:
                errors.append(error)

        clients = [self.client() for _ in range(publishers)]
        for client in clients:
            client.register(schema)
        threads = [threading.Thread(target=publish, args=(client,), daemon=True) for client in clients]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join(LIMIT_S)
        assert not errors, repr(errors[0])

    # -- working ----------------------------------------------------------------------------------

    def start_worker(self, schema: JobSchema, *, url: str | None = None) -> CoordinatedWorker:
        """Start a worker whose jobs run until :meth:`CoordinatedWorker.go`."""
        worker = CoordinatedWorker(url or self.url, schema, self.folder, self.target.lease_s)
        self._workers.append(worker)
        return worker

    def running(self) -> set[str]:
        """Return the jobs that were started and haven't ended, also those of workers that died."""
        return self._ids(self.started.runs()) - self._ids(self.finished.runs())

    def wait_until_running(self, worker: CoordinatedWorker, count: int) -> set[str]:
        """Wait until a worker, which wasn't told to go, runs so many jobs, and return them."""

        def started() -> set[str]:
            return {run.job_id for run in self.started.runs() if run.pid == worker.pid}

        eventually(lambda: len(started()) >= count, f"{count} jobs run")
        return started()

    def let_run(self, workers: Sequence[CoordinatedWorker], count: int) -> None:
        """Have the jobs that workers run end, and wait until ``count`` have."""
        goal = len(self.finished) + count  # first: they may all have run before this looks again
        for worker in workers:
            worker.go()
        eventually(lambda: len(self.finished) >= goal, f"{count} jobs run")

    def wait_until_run(self, count: int) -> None:
        """Wait until ``count`` more jobs have run, while jobs are published all the time."""
        goal = len(self.finished) + count
        eventually(lambda: len(self.finished) >= goal, f"{count} more jobs run")

    def wait_until_drained(self, schema: JobSchema) -> None:
        """Wait until nothing waits or is in flight, and every confirmed job was finished."""

        def is_drained() -> bool:
            counts = self._auditor.counts(schema.name)
            rest = self.audit.confirmed - self._ids(self.finished.runs())
            return not (counts.waiting or counts.in_flight or rest)

        eventually(is_drained, "every job is done")

    def end_workers(self) -> None:
        """Stop those that weren't killed, gracefully."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def kill(self, worker: CoordinatedWorker) -> None:
        """Kill a worker, and note that what it runs may run again."""
        worker.kill()
        self._workers.remove(worker)
        self.audit.in_flight_at_faults.append(self.running())

    def kill_at_work(self, worker: CoordinatedWorker) -> None:
        """Kill a worker that goes from job to job; what it had received last may run again."""
        began = len(self.started)
        worker.kill()
        self._workers.remove(worker)
        self._note_fault([worker], began, IN_FLIGHT)

    def crash(
        self, target: ServerTarget, workers: Sequence[CoordinatedWorker], *, in_flight: int = IN_FLIGHT
    ) -> None:
        """Kill the server, start it again, and wait until as many jobs have run as were in flight."""
        began = len(self.started)
        target.crash()
        self.wait_until_run(in_flight)
        self._note_fault(workers, began, in_flight)

    def _note_fault(self, workers: Sequence[CoordinatedWorker], began: int, in_flight: int) -> None:
        pids = frozenset(worker.pid for worker in workers)
        self.audit.faults.append(Fault(pids, began, len(self.started), in_flight))

    def _kill_workers(self) -> None:
        for worker in self._workers:
            worker.kill()

    @staticmethod
    def _ids(runs: list[Execution]) -> set[str]:
        return {run.job_id for run in runs}

    # -- the end ----------------------------------------------------------------------------------

    def check(self, schema: JobSchema) -> Totals:
        """End the workers, and demand that the audit of the jobs adds up with nothing left."""
        self.end_workers()
        if schema is CHAINED and not self.jobs.backend.capabilities.atomic_then:
            # A job that ran again may have published its next one twice, and so on to the end of the chain.
            self.audit.in_flight_at_faults += [self.audit.confirmed] * len(self.audit.faults)
        totals = self.audit.check(self._auditor, schema.name, self.started, self.finished, all_done=False)
        assert (totals.live, totals.dead) == (0, 0), totals
        self.totals = totals
        return totals

    def check_limit(self) -> None:
        """Demand that no key ever had more places than its limit, and that all places are free at the end."""
        most = PlaceLog(self.files.places).most_at_once()
        assert most, "no place was ever taken"
        assert set(most.values()) == {LIMIT}, most
        for key in most:
            all_places = [Place(key, LIMIT, f"auditor-{number}") for number in range(LIMIT)]
            eventually(
                lambda: all(self.store.take_places(all_places, ttl_s=60.0)),  # noqa: B023
                f"the places of {key} come back",
            )

    def check_unique(self) -> None:
        """Demand that no key had two jobs at once that were surely live: from their confirm to their end."""
        ended: dict[str, float] = {}
        for line in whole_lines(self.files.moments):
            what, job_id, moment = line.split()
            if what == "end":
                ended.setdefault(job_id, float(moment))
        lives: dict[str, list[tuple[float, float, Published]]] = defaultdict(list)
        for job in self.published:
            if job.ended < ended[job.id]:  # else it had run before its publisher was answered
                lives[job.key].append((job.ended, ended[job.id], job))
        for key, those in lives.items():
            for before, after in pairwise(sorted(those)):
                assert before[1] <= after[0], f"two jobs of {key}: {before[2]} until {before[1]}; {after[2]}"

    def starts(self) -> list[float]:
        """Return when jobs were started, by the clock of the machine."""
        lines = (line.split() for line in whole_lines(self.files.moments))
        return [float(moment) for what, _, moment in lines if what == "start"]
