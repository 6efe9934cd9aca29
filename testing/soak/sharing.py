"""Beside a soak, a worker whose three consumers share one permit: never do two of its handlers run at once.

Its process is killed now and then, while jobs are published to all three queues.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from job_audit import ExecutionRecord
from mindtrace.jobs import Orchestrator, PublishStatus
from mindtrace.jobs.cli.errors import Exit
from mindtrace.jobs.domain.errors import BackendUnavailable

from .environment import Environment, SoakFailed
from .jobs import LEASE_S
from .sharing_tasks import MET, RAN, SCHEMAS

_PAUSE_S = 0.2
_BATCH = 3
_END_S = 60.0
_DRAIN_S = 300.0


class SharingWorker:
    """The worker, its publisher, and what kills it.

    Args:
        environment: The backend, and where the records are kept.
        rng: When to kill.
    """

    def __init__(self, environment: Environment, rng: random.Random) -> None:
        self._environment = environment
        self._rng = rng
        self._ran = ExecutionRecord(environment.folder / RAN)
        self._met = ExecutionRecord(environment.folder / MET)
        self._accepted: set[str] = set()
        self._kills = 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._publish, self._kill_now_and_then)]

    def __enter__(self) -> Self:
        with Orchestrator(self._environment.url) as jobs:
            for schema in SCHEMAS:
                jobs.register(schema)
        self._process = self._start()
        for thread in self._threads:
            thread.start()
        return self

    def _start(self) -> "subprocess.Popen[bytes]":
        self._runs_before = len(self._ran)
        words = [sys.executable, "-m", "mindtrace.jobs", "worker", "soak.sharing_tasks", "--jobs", "1"]
        words += ["--backend", self._environment.url, "--lease", str(LEASE_S), "--log-level", "warning"]
        testing = Path(__file__).parents[1]
        environment = os.environ | {"PYTHONPATH": str(testing), "SOAK_FOLDER": str(self._environment.folder)}
        with (self._environment.folder / "sharing.log").open("ab") as log:
            return subprocess.Popen(words, env=environment, stdout=log, stderr=log)

    def __exit__(self, *_: object) -> None:
        self._end_threads()
        self._process.kill()
        self._process.wait()

    def _end_threads(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _publish(self) -> None:
        with Orchestrator(self._environment.url) as jobs:
            while not self._over.wait(_PAUSE_S):
                for schema in SCHEMAS:
                    with suppress(BackendUnavailable):
                        handles = jobs.publish_batch(schema, [{}] * _BATCH)
                        self._accepted |= {
                            each.id for each in handles if each.outcome.status is PublishStatus.ACCEPTED
                        }

    def _kill_now_and_then(self) -> None:
        """Kill its process, and the supervisor, which would wait longer each time until the next start."""
        while not self._over.wait(self._rng.uniform(3.0, 10.0)):
            self._start_anew_if_away()
            if runs := self._ran.runs():
                with suppress(ProcessLookupError):
                    os.kill(runs[-1].pid, signal.SIGKILL)
                self._process.kill()
                self._process.wait()
                self._process = self._start()
                self._kills += 1

    def _start_anew_if_away(self) -> None:
        """Do as systemd does with a worker that found no broker as it began, or one that takes no writes."""
        if self._process.poll() == Exit.BROKER and len(self._ran) == self._runs_before:
            self._process = self._start()

    def end(self) -> list[str]:
        """Have it work off what is left and stop; return what is wrong.

        Raises:
            SoakFailed: it doesn't.
        """
        self._end_threads()
        if not self._accepted:
            raise SoakFailed("no jobs with one permit were published")
        give_up = time.monotonic() + _DRAIN_S
        while missing := self._accepted - {run.job_id for run in self._ran.runs()}:
            self._start_anew_if_away()
            if (code := self._process.poll()) is not None:
                raise SoakFailed(f"the worker with one permit ended by itself with {code}")
            if time.monotonic() > give_up:
                raise SoakFailed(f"of jobs with one permit, {len(missing)} never ran")
            time.sleep(0.2)
        self._process.send_signal(signal.SIGTERM)
        if code := self._process.wait(_END_S):
            raise SoakFailed(f"the worker with one permit ended with {code}")
        with Orchestrator(self._environment.url) as jobs:
            dead = sum(jobs.counts(schema).dead for schema in SCHEMAS)
        print(
            f"one permit for three consumers: {len(self._accepted)} jobs accepted, {len(self._ran)} runs, "
            f"{self._kills} kills, {len(self._met)} met another"
        )
        wrong = {f"{len(self._met)} handlers ran beside another": len(self._met), f"{dead} jobs died": dead}
        return [f"with one permit, {what}" for what, count in wrong.items() if count]
