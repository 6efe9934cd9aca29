"""How fast a worker drains while a transaction is held open, as a backup holds one, and jobs flow.

PostgreSQL removes no row that died since the oldest snapshot was taken, so the rows of finished jobs pile up,
and a take may have to read past them. Each library has a server of its own. One worker works all the time;
to time a drain alone, it is stopped (SIGSTOP) while jobs are published. A few drains are timed before the
transaction begins, and as many at the end; in between the same goes on. Without the rest of the benchmark:

    .venv/bin/python -m benchmarks.scenarios.held_snapshot [--minutes 10] [--peer ours] [--writes]

With ``--writes`` the transaction has written something, so that it has an id, too.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

import psycopg

from ..brokers import private_brokers
from ..contenders import CONTENDERS, Contender, Running, running
from ..results import HELD, Results

BROKER = "postgresql"
DRAINS = 3
"""How many drains are timed before and at the end; the figure is their median."""
MOST_JOBS = 3_000_000
"""How many jobs may flow while the transaction is held, which is less than a record holds. A library that
could do more is paced, so that jobs flow until the end."""


def measure(
    results: Results, contenders: Sequence[Contender], minutes: float, *, writes: bool = False
) -> None:
    """Add the drain's rate before and at the end, of each library in turn."""
    for contender in contenders:
        if contender.broker != BROKER or contender.concurrency > 1:
            continue
        with private_brokers((BROKER,)) as urls, running(contender, urls[BROKER], "bench-held") as one:
            results.introduce(one.subject)
            for name, (value, unit) in figures(
                one, urls[BROKER], contender.drained // 2, minutes, writes
            ).items():
                results.add(HELD, BROKER, one.subject.library, name, unit, value)


def figures(one: Running, url: str, jobs: int, minutes: float, writes: bool) -> dict[str, tuple[float, str]]:
    """Return the rates before and at the end, their ratio, and how many jobs were done in between."""
    flow = Flow(one, jobs)
    before = [flow.drain() for _ in range(DRAINS + 1)][1:]  # the first shows them to the caches
    done_before = flow.published
    with held_transaction(url, writes=writes):
        begin = time.monotonic()
        end = begin + 60 * minutes
        while (now := time.monotonic()) < end:
            rate = flow.drain()
            print(f"{one.subject.library}: {end - now:4.0f} s left, {rate:,.0f} jobs/s", file=sys.stderr)
            on_pace = begin + (end - begin) * (flow.published - done_before) / MOST_JOBS
            time.sleep(max(0.0, on_pace - time.monotonic()))
        after = [flow.drain() for _ in range(DRAINS)]
    return {
        "before": (median(before), "jobs/s"),
        "after": (median(after), "jobs/s"),
        "ratio": (median(after) / median(before), ""),
        "jobs": (flow.published - done_before, ""),
    }


class Flow:
    """Jobs that one worker drains, some at a time.

    Args:
        one: The library, whose worker is started here.
        jobs: How many are drained at a time.
    """

    def __init__(self, one: Running, jobs: int) -> None:
        self._one = one
        self._jobs = jobs
        self._step = "publish_batch" if one.traits["has_batches"] else "publish"
        self.published = 0
        self._publish()
        one.start_worker()
        one.wait_for("no_op", self.published)

    def drain(self) -> float:
        """Publish jobs while the worker is stopped, let it go on, and return how many it begins a second."""
        before = self.published
        with self._one.stopped_worker():
            self._publish()
        moments = self._one.wait_for("no_op", self.published, after=before)
        return (len(moments) - 1) / (moments[-1] - moments[0])

    def _publish(self) -> None:
        self._one.ask(self._step, kind="no_op", count=self._jobs)
        self.published += self._jobs


@contextmanager
def held_transaction(url: str, *, writes: bool) -> Iterator[None]:
    """Hold a transaction with a snapshot, as a backup does; with an id as well if it writes."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT count(*) FROM pg_class")
        if writes:
            connection.execute("SELECT pg_current_xact_id()")
        yield
        connection.rollback()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the transaction is held")
    parser.add_argument("--peer", action="append", help="this one alone; may be given again")
    parser.add_argument("--writes", action="store_true", help="the transaction has written something")
    options = parser.parse_args()
    contenders = [
        one for one in CONTENDERS if one.installed and (options.peer is None or one.peer in options.peer)
    ]
    results = Results({}, 1)
    measure(results, contenders, options.minutes, writes=options.writes)
    for figure in results.figures:
        print(f"{figure.library:16} {figure.name:16} {figure.median:12,.2f} {figure.unit}")


if __name__ == "__main__":
    main()
