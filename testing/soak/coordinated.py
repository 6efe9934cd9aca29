"""What a soak does beside its jobs: limited, unique, chained and cancelled ones, a schedule, and pauses."""

import json
import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from itertools import pairwise
from math import inf
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from whole_lines import whole_lines

from mindtrace.jobs import (
    Consumer,
    Job,
    JobInput,
    JobSchema,
    Limit,
    Orchestrator,
    RetryPolicy,
    Scheduler,
    Then,
    Unique,
)
from mindtrace.jobs.domain.errors import BackendUnavailable, NotConnected
from place_audit import PlaceLog

from .jobs import LEASE_S

LIMIT = 2
SEEN_S = 1.0
"""How soon a consumer sees a pause."""
_LATE_S = 1.0
"""How late the threads of a busy machine may be."""
_RETRY = RetryPolicy(base_delay_s=0.2, max_crashes=1_000)
SCHEDULE = "soak-tick"
EVERY = timedelta(seconds=1)
KEYS = "abc"
_USED = 0.25
"""The part of the places of a crowded queue that jobs must use in the best second. Busy machines use few."""
_JUDGED_AFTER_S = 30
"""For how many seconds jobs must have waited: the best of a few may be bad, as a machine is busy."""
LINKS = 3
"""How many jobs a chain has."""


class Keyed(JobInput):
    """A job with a key, which takes a moment."""

    key: str = "only"
    work_s: float = 0.0


LIMITED = JobSchema("soak-limited", Keyed, retry=_RETRY, concurrency_limit=Limit(LIMIT, by="key"))
CROWDED = JobSchema("soak-crowded", Keyed, retry=_RETRY, concurrency_limit=Limit(LIMIT, by="key"))
"""So many of its jobs wait that a consumer can't keep them all."""
SINGLE = JobSchema("soak-single", Keyed, retry=_RETRY, concurrency_limit=Limit(1, by="key"))
"""There are fewer places than workers, each of which runs one of its jobs at a time."""
UNIQUE = JobSchema("soak-unique", Keyed, retry=_RETRY, unique=Unique(by=("key",)))
TICKS = JobSchema("soak-ticks", Keyed, retry=_RETRY)
CHAINED = JobSchema("soak-chained", Keyed, retry=_RETRY)
CANCELLED = JobSchema("soak-cancelled", Keyed, retry=_RETRY)
SCHEMAS = (LIMITED, CROWDED, SINGLE, UNIQUE, TICKS, CHAINED, CANCELLED)


def links_of(first: str) -> list[str]:
    """Return the ids of a chain's jobs, by that of the first."""
    return [first, *(f"{first}.{number}" for number in range(1, LINKS))]


class Line(NamedTuple):
    """A line of the log: what happened with a job of which queue, or with a queue, and when.

    Moments are of the machine's monotonic clock, which all processes share.
    """

    what: str
    """published, started, ended; asked, as it is to be cancelled, and cancelled, if it was before it ran;
    paused or resumed; or scheduled, whose ``job`` is its first slot."""
    queue: str
    job: str
    key: str
    pid: int
    moment: float


class Log:
    """A file to which all processes append lines; no kill can tear one."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "coordinated"
        self.places = PlaceLog(folder / "places")
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, what: str, queue: str, job: str = "", key: str = "") -> None:
        """Append a line for what happens now."""
        line = Line(what, queue, job, key, os.getpid(), time.monotonic())
        os.write(self._file, f"{json.dumps(line)}\n".encode())

    def lines(self) -> list[Line]:
        """All so far."""
        return [Line(*json.loads(line)) for line in whole_lines(self._path)]


class _Runner(Consumer[Keyed]):
    def __init__(self, schema: JobSchema[Any, Any], log: Log) -> None:
        super().__init__(schema.name)
        self._log = log

    def run(self, job: Job[Keyed]) -> Then | None:
        queue, key = job.schema_name, job.payload.key
        self._log.note("started", queue, job.id, key)
        time.sleep(job.payload.work_s)
        self._log.note("ended", queue, job.id, key)
        following = _next_link(job.id) if queue == CHAINED.name else None
        return None if following is None else Then(CHAINED, job.payload, id=following)


class _CrowdedRunner(_Runner):
    concurrency = 4


def _next_link(link: str) -> str | None:
    links = links_of(link.partition(".")[0])
    return dict(pairwise(links)).get(link)


@contextmanager
def coordinating(url: str, folder: Path) -> Iterator[None]:
    """Work on the queues of this module, and run the schedule, on threads."""
    with Orchestrator(url) as orchestrator:
        log, over = Log(folder), threading.Event()
        for schema in SCHEMAS:
            until_there(lambda schema=schema: orchestrator.register(schema), over)  # type: ignore[misc]
        log.places.watch(orchestrator.backend.coordination)
        consumers = [(_CrowdedRunner if schema is CROWDED else _Runner)(schema, log) for schema in SCHEMAS]
        threads = [
            threading.Thread(target=_consume, args=(each, orchestrator, over), daemon=True)
            for each in consumers
        ]
        for thread in threads:
            thread.start()
        try:
            with Scheduler(orchestrator):
                yield
        finally:
            over.set()
            for consumer, thread in zip(consumers, threads, strict=True):
                with suppress(NotConnected):  # the backend was away from the start
                    consumer.stop()
                thread.join()
                consumer.close()


def _consume(consumer: _Runner, orchestrator: Orchestrator, over: threading.Event) -> None:
    options = {"lease_s": LEASE_S, "prefetch": 4, "poll_timeout_s": 1.0}
    until_there(lambda: consumer.connect(orchestrator, **options), over)
    if not over.is_set():
        consumer.consume()


def has_begun(lines: Sequence[Line], pid: int) -> bool:
    """Whether a process has begun to work on the queues that are never empty for long."""
    return {LIMITED.name, UNIQUE.name} <= {line.queue for line in lines if line.pid == pid}


def until_there(act: Any, over: threading.Event) -> None:
    """Act, again while the backend is away."""
    while not over.is_set():
        try:
            act()
            return
        except BackendUnavailable:
            over.wait(0.5)


def find_faults(
    lines: Sequence[Line], log: Log, last_slot: datetime | None, stopped: frozenset[int]
) -> list[str]:
    """Return what is wrong with a finished run.

    Args:
        lines: The log.
        log: Where the answers of the store are.
        last_slot: The last slot that was published.
        stopped: The processes that stood still for a while, and may not have seen a pause.
    """
    most = log.places.most_at_once()
    wrong = [f"{count} places of {key} at once" for key, count in most.items() if count > _allowed(key)]
    ended = {line.job for line in lines if line.what == "ended"}
    lost = sorted(_expected(lines) - ended)
    wrong += [f"{len(lost)} jobs never ran: {lost[:3]}"] if lost else []
    missing = _slots(lines, last_slot) - ended
    wrong += [f"{len(missing)} slots have no job: {sorted(missing)[:3]}"] if missing else []
    seconds = used_of_allowed(lines)
    if len(seconds) >= _JUDGED_AFTER_S and max(seconds) < _USED:
        wrong.append(f"jobs used {max(seconds):.0%} of the places of {CROWDED.name} in the best second")
    return [
        *wrong,
        *_two_at_once(lines),
        *_started_in_pauses(lines, stopped),
        *_started_when_cancelled(lines, stopped),
    ]


def _allowed(place: str) -> int:
    """Return how many holders a place may have, by its key."""
    return 1 if f"/{SINGLE.name}/" in place else LIMIT


def _expected(lines: Sequence[Line]) -> set[str]:
    """Return the jobs that must have run: all that were published but those that were to be cancelled."""
    published = {line.job for line in lines if line.what == "published" and line.queue != CHAINED.name}
    chains = [line.job for line in lines if line.what == "published" and line.queue == CHAINED.name]
    asked = {line.job for line in lines if line.what == "asked"}
    return (published - asked).union(*map(links_of, chains))


def _slots(lines: Sequence[Line], last: datetime | None) -> set[str]:
    begun = [line.job for line in lines if line.what == "scheduled"]
    if not begun or last is None:
        return {"none was ever published"}
    first = datetime.fromisoformat(begun[0])
    moments = (first + number * EVERY for number in range((last - first) // EVERY + 1))
    return {f"{SCHEDULE}.{moment:%Y%m%dT%H%M%S}Z" for moment in moments}


def _two_at_once(lines: Sequence[Line]) -> Iterator[str]:
    """Find keys with two unique jobs that were surely live at once: from their confirm to their first end."""
    ended: dict[str, float] = {}
    lives: dict[str, list[tuple[float, float]]] = defaultdict(list)
    unique = [line for line in lines if line.queue == UNIQUE.name]
    for line in unique:
        if line.what == "ended":
            ended.setdefault(line.job, line.moment)
    for line in unique:
        if line.what == "published" and line.moment < ended.get(line.job, 0.0):
            lives[line.key].append((line.moment, ended[line.job]))
    for key, those in lives.items():
        if any(end > start for (_, end), (start, _) in pairwise(sorted(those))):
            yield f"{key} has two unique jobs at once"


def _started_in_pauses(lines: Sequence[Line], stopped: frozenset[int]) -> Iterator[str]:
    paused: float | None = None
    for line in sorted(lines, key=lambda line: line.moment):
        if line.queue != LIMITED.name or line.pid in stopped:
            continue
        if line.what == "paused":
            paused = line.moment
        elif line.what == "resumed":
            paused = None
        elif line.what == "started" and paused is not None and line.moment > paused + SEEN_S + _LATE_S:
            yield f"{line.job} was started {line.moment - paused:.2f} s after a pause"


def _started_when_cancelled(lines: Sequence[Line], stopped: frozenset[int]) -> Iterator[str]:
    cancelled = {line.job: line.moment for line in lines if line.what == "cancelled"}
    for line in lines:
        if line.what == "started" and line.pid not in stopped and line.moment > cancelled.get(line.job, inf):
            yield f"{line.job} was started {line.moment - cancelled[line.job]:.2f} s after it was cancelled"


def used_of_allowed(lines: Sequence[Line]) -> list[float]:
    """Return the part of the crowded queue's places that was in use, for each second in which jobs waited."""
    crowd = [line for line in lines if line.queue == CROWDED.name]
    begun = min((line.moment for line in crowd if line.what == "started"), default=inf)
    over = max((line.moment for line in crowd if line.what == "published"), default=-inf)
    used: Counter[int] = Counter()
    running: dict[tuple[str, int], float] = {}
    for line in crowd:
        if line.what == "started":
            running[line.job, line.pid] = line.moment
        elif line.what == "ended":
            started = running.pop((line.job, line.pid), line.moment)
            for second in range(int(started - begun), int(line.moment - begun) + 1):
                part = min(line.moment - begun, second + 1) - max(started - begun, second)
                used[second] += round(part * 1_000_000)
    seconds = range(int(over - begun)) if over > begun else range(0)
    return [used[second] / 1_000_000 / (LIMIT * len(KEYS)) for second in seconds]


def longest_standstill_s(lines: Sequence[Line], begins: float, ends: float) -> float:
    """Return for how long no job ended, between two moments, at the most."""
    within = sorted(line.moment for line in lines if line.what == "ended" and begins < line.moment < ends)
    return max(after - before for before, after in pairwise([begins, *within, ends]))


def figures(lines: Sequence[Line], log: Log) -> str:
    """Say what happened, in one line."""
    done = defaultdict(set[str])
    for line in lines:
        if line.what == "ended":
            done[line.queue].add(line.job)
    most = max(log.places.most_at_once().values(), default=0)
    times = Counter(line.what for line in lines)
    seconds = used_of_allowed(lines)
    used = f"{median(seconds):.0%}, at best {max(seconds):.0%}" if seconds else "none"
    return (
        f"{len(done[LIMITED.name])} limited jobs, at most {most} of {LIMIT} places at once; "
        f"{len(done[CROWDED.name])} crowded jobs used {used} of what was allowed; "
        f"{len(done[UNIQUE.name])} unique; {len(done[TICKS.name])} slots; {len(done[CHAINED.name])} links; "
        f"{times['cancelled']} of {times['asked']} cancelled before they ran; {times['paused']} pauses"
    )
