"""Have handlers hang in each way, again and again beside load, and tell how late each was ended.

    PYTHONPATH=testing .venv/bin/python -m hangs --rounds 100 sqlite

Each backend is private: a file, or a server of its own. Every job that hangs must be dead as timed out, at
its first attempt, and charged with no crash; all others must be done at their first attempt, though their
processes were replaced. None may be ended later than a second after its limits.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from whole_lines import whole_lines

from mindtrace.jobs import DeadLetter, JobSchema, Orchestrator
from mindtrace.jobs.domain.dead_reasons import DeadReason
from soak.environment import ENVIRONMENTS, Environment

from .handlers import BEGAN, DONE, KILL_AFTER_S, LOAD, SCHEMAS, TIMEOUT_S, WAYS, Hang

_LATEST_S = 1.0
"""How much later than its limits say a handler may be ended."""
_LOAD_EACH_S = 0.05
_ROUND_S = 120.0
_ENDED_AT_ONCE = ("python", "await")
"""What the time limit itself ends; all else goes on until its process is ended."""
_ALL = 10**6


class Line(NamedTuple):
    """A handler that began or ended."""

    job_id: str
    moment_s: float
    attempt: int


class Hangs:
    """Runs the rounds on one backend."""

    def __init__(self, environment: Environment, jobs: Orchestrator) -> None:
        self._folder = environment.folder
        self._url = environment.url
        self._jobs = jobs
        self._hung: dict[str, tuple[JobSchema[Hang], str]] = {}
        self._load: set[str] = set()

    def run(self, rounds: int) -> list[str]:
        """Run so many rounds, print the figures, and return what is wrong."""
        for schema in SCHEMAS:
            self._jobs.register(schema)
        with self._working() as worker, self._loading():
            for number in range(1, rounds + 1):
                if not self._run_round():
                    return [f"round {number}: after {_ROUND_S:g} s a handler still hangs, or its job is lost"]
                if number % 10 == 0:
                    print(f"  {number} rounds", flush=True)
        wrong = self._audit()
        if worker.returncode:
            wrong.append(f"the worker ended with {worker.returncode}")
        return wrong

    @contextmanager
    def _working(self) -> Iterator["subprocess.Popen[bytes]"]:
        words = [sys.executable, "-m", "mindtrace.jobs", "worker", "hangs.handlers", "--backend", self._url]
        words += ["--processes", "2", "--grace", "30", "--log-level", "warning"]
        paths = {"PYTHONPATH": str(Path(__file__).parents[1]), "HANGS_FOLDER": str(self._folder)}
        with (self._folder / "worker.log").open("wb") as log:
            process = subprocess.Popen(words, env=os.environ | paths, stdout=log, stderr=log)
        try:
            yield process
            self._drain()
            process.send_signal(signal.SIGTERM)
            process.wait(60.0)
        finally:
            process.kill()
            process.wait()

    @contextmanager
    def _loading(self) -> Iterator[None]:
        """Publish jobs that don't hang all the time."""
        over = threading.Event()

        def load() -> None:
            while not over.wait(_LOAD_EACH_S):
                self._load.add(self._jobs.publish(LOAD, Hang()))

        thread = threading.Thread(target=load)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _run_round(self) -> bool:
        """Have one handler hang in each way; return whether each was ended."""
        for schema, ways in WAYS.items():
            for how in ways:
                id_ = self._jobs.publish(schema, Hang(how=how), timeout_s=TIMEOUT_S)
                self._hung[id_] = (schema, how)
            self._load.add(self._jobs.publish(schema, Hang()))
        give_up = time.monotonic() + _ROUND_S
        while sum(self._jobs.counts(schema).dead for schema in WAYS) < len(self._hung):
            if time.monotonic() > give_up:
                return False
            time.sleep(0.05)
        return True

    def _drain(self) -> None:
        give_up = time.monotonic() + _ROUND_S
        while self._load - {line.job_id for line in self._lines(DONE)} and time.monotonic() < give_up:
            time.sleep(0.1)

    def _lines(self, name: str) -> list[Line]:
        path = self._folder / name
        lines = (line.split() for line in whole_lines(path)) if path.exists() else ()
        return [Line(id_, float(moment), int(attempt)) for id_, moment, attempt in lines]

    def _audit(self) -> list[str]:
        """Print how late the handlers were ended, and return what is wrong."""
        letters = [letter for schema in SCHEMAS for letter in self._jobs.dead_letters(schema, limit=_ALL)]
        latest = self._print_lateness(letters)
        done, began = self._lines(DONE), self._lines(BEGAN)
        blamed = [
            each
            for each in letters
            if (each.reason, each.attempt, each.crashes) != (DeadReason.TIMED_OUT, 1, 0)
        ]
        again = Counter(line.job_id for line in done).total() - len({line.job_id for line in done})
        interrupted = len(began) - len(done) - len(self._hung)
        print(
            f"  {len(self._hung)} handlers hung, {len(self._load)} jobs beside them; {interrupted} of their "
            f"runs were interrupted, {again} came to their end as the process was ended, and ran again"
        )
        found = {
            "jobs that hung are no dead letters": len(self._hung.keys() - {each.id for each in letters}),
            "other jobs died": len({each.id for each in letters} - self._hung.keys()),
            "dead letters blame the job for more than one timeout": len(blamed),
            "jobs beside them were never done": len(self._load - {line.job_id for line in done}),
            "jobs beside them spent an attempt": sum(line.attempt > 1 for line in done),
        }
        wrong = [f"{count} {what}" for what, count in found.items() if count]
        if latest > _LATEST_S:
            wrong.append(f"a handler was ended {latest:.2f} s after its limits")
        return wrong

    def _print_lateness(self, letters: list[DeadLetter]) -> float:
        began = {line.job_id: line.moment_s for line in self._lines(BEGAN)}
        late: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        for letter in letters:
            schema, how = self._hung.get(letter.id, (LOAD, ""))
            limit_s = TIMEOUT_S + (0.0 if how in _ENDED_AT_ONCE else KILL_AFTER_S)
            late[schema.name, how].append(letter.died_at.timestamp() - began[letter.id] - limit_s)
        for (queue, how), values in sorted(late.items()):
            figures = f"median {median(values):+.2f} s, latest {max(values):+.2f} s"
            print(f"  {queue:14} {how:7} {len(values):4} ended, {figures}")
        return max((max(values) for values in late.values()), default=0.0)


def main() -> int:
    """Try each backend that is named, and return 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m hangs", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("backends", nargs="*", metavar="BACKEND", help=f"of {', '.join(ENVIRONMENTS)}")
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    if unknown := set(options.backends) - set(ENVIRONMENTS):
        parser.error(f"no backend {', '.join(sorted(unknown))}: choose of {', '.join(ENVIRONMENTS)}")
    is_wrong = False
    for name in options.backends or list(ENVIRONMENTS):
        print(f"{name}: {options.rounds} rounds", flush=True)
        with (
            tempfile.TemporaryDirectory(prefix="mindtrace-jobs-hangs-") as folder,
            ENVIRONMENTS[name](Path(folder)) as environment,
            Orchestrator(environment.url) as jobs,
        ):
            wrong = Hangs(environment, jobs).run(options.rounds)
            log = (environment.folder / "worker.log").read_text("utf-8", "replace")
            if wrong:
                print(log[-2000:])
        print(f"{name}: {'; '.join(wrong) or 'each was ended in time, and nothing is lost'}", flush=True)
        is_wrong |= bool(wrong)
    return is_wrong


if __name__ == "__main__":
    sys.exit(main())
