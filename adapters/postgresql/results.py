"""How jobs ended, and how far those that run have come."""

from collections.abc import Callable, Sequence
from time import monotonic

from ...domain.job_progress import Progress
from ...ports import EndedJobs, JobResult, JobStatus, ResultStatus
from ..shared.chunks import in_chunks
from ..shared.error_messages import not_declared
from ..shared.records import parse_progress
from .binary_format import TRUE, parse_int, texts
from .session import Session
from .statements import Statements
from .wakeups import ALL, ENDED, Waiter, Wakeups

_CHUNK = 1000
_CANCELLED = b"\0"
"""In place of the output of a job that was cancelled."""
_LOOKS_S = (0.02, 0.1)
"""How many seconds after each other to look again after an announcement, as a consumer does."""
ANNOUNCED_S = 8.0
"""How long an announcement is good for; the server keeps it for 20 s at least."""


class Results:
    """Looks results up, and waits for them.

    Args:
        session: The way to the server.
        statements: The statements for the session's schema.
        wakeups: Tells that jobs have ended.
        poll_s: The longest, in seconds, that one who waits asks nobody.
    """

    def __init__(self, session: Session, statements: Statements, wakeups: Wakeups, poll_s: float) -> None:
        self._session = session
        self._statements = statements
        self._wakeups = wakeups
        self._poll_s = min(poll_s, ANNOUNCED_S)

    def result(self, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        """Return how a job ended, waiting for that (RES-1)."""

        def look() -> JobResult | None:
            return self.results(queue, [job_id]).get(job_id)

        return wait_for_end(job_id, look, lambda: self.ended_jobs(queue), timeout_s, self._poll_s)

    def results(self, queue: str, ids: Sequence[str]) -> dict[str, JobResult]:
        """Return how those of these jobs ended that have (RES-1)."""
        found: dict[str, JobResult] = {}
        for chunk in in_chunks(ids, _CHUNK):
            found |= self._look_up(queue, chunk)
        if not ids:
            self._look_up(queue, [])
        return found

    def _look_up(self, queue: str, ids: Sequence[str]) -> dict[str, JobResult]:
        rows = self._session.look(
            self._statements.results, [queue.encode(), texts(ids)], queue=queue
        ).all_rows()
        if (
            not rows
            and not self._session.look(self._statements.find_queue, [queue.encode()], queue=queue).rows
        ):
            raise not_declared(queue)
        found: dict[str, JobResult] = {}
        for raw_id, is_live, error, is_kept, body, is_dead in rows:
            id_ = (raw_id or b"").decode()
            if is_dead == TRUE:
                found[id_] = JobResult(
                    ResultStatus.FAILED, error=(error or b"").decode(errors="backslashreplace")
                )
            elif raw_id is not None and is_live != TRUE and (is_kept != TRUE or body is not None):
                cancelled = body == _CANCELLED
                found[id_] = JobResult(
                    ResultStatus.CANCELLED if cancelled else ResultStatus.DONE, None if cancelled else body
                )
        return found

    def status(self, queue: str, job_id: str) -> JobStatus:
        """Say where a job is (RES-1)."""
        parameters = [queue.encode(), job_id.encode()]
        answer = self._session.look(self._statements.status, parameters, queue=queue)
        if not answer.rows:
            raise not_declared(queue)
        is_dead, is_live, is_running = (value == TRUE for value in answer.row(0))
        if is_live:
            return JobStatus.FAILED if is_dead else JobStatus.RUNNING if is_running else JobStatus.WAITING
        found = self.results(queue, [job_id]).get(job_id)
        return JobStatus.UNKNOWN if found is None else JobStatus(found.status)

    def progress(self, queue: str, ids: Sequence[str] | None) -> dict[str, Progress]:
        """Say how far the running jobs have come, as far as they reported."""
        rows = self._session.look(self._statements.progress, [queue.encode()], queue=queue).all_rows()
        if not rows:
            raise not_declared(queue)
        reported = {
            id_.decode(): progress
            for _, id_, text in rows
            if id_ is not None and (progress := parse_progress(text)) is not None
        }
        return reported if ids is None else {id_: reported[id_] for id_ in ids if id_ in reported}

    def ended_jobs(self, queue: str) -> "PostgreSQLEndedJobs":
        """Open what tells which jobs end from now on."""
        key = self._announce(queue)
        waiter = self._wakeups.open_waiter(key, ENDED)
        return PostgreSQLEndedJobs(waiter, lambda: self._announce(queue), self._poll_s)

    def _announce(self, queue: str) -> int:
        answer = self._session.look(self._statements.announce_caller, [queue.encode()], queue=queue)
        return parse_int(answer.value(0, 0))


def wait_for_end(
    job_id: str,
    look: Callable[[], JobResult | None],
    open_ended_jobs: Callable[[], EndedJobs],
    timeout_s: float,
    poll_s: float,
) -> JobResult | None:
    """Look up how a job ended, and wait up to ``timeout_s`` seconds for its end.

    Args:
        job_id: The job.
        look: Looks it up.
        open_ended_jobs: Opens what tells which jobs end.
        timeout_s: How long to wait.
        poll_s: After how many seconds at the latest to look again.
    """
    give_up = monotonic() + timeout_s
    found = look()
    if found is not None or timeout_s <= 0:
        return found
    with open_ended_jobs() as ended:
        while True:
            found = look()
            remaining_s = give_up - monotonic()
            if found is not None or remaining_s <= 0:
                return found
            while True:  # a wake-up that names only jobs of other callers is no reason to look
                told = ended.wait(min(remaining_s, poll_s))
                remaining_s = give_up - monotonic()
                if not told or job_id in told or remaining_s <= 0:
                    break


class PostgreSQLEndedJobs(EndedJobs):
    """Learns by notifications which jobs have ended: each names some.

    Args:
        waiter: Waits for them.
        announce: Has it told for some more seconds.
        poll_s: After how many seconds any job may have ended without being told, as behind a pooler.
    """

    def __init__(self, waiter: Waiter, announce: Callable[[], object], poll_s: float) -> None:
        super().__init__()
        self._waiter = waiter
        self._announce = announce
        self._announced = monotonic()
        self._poll_s = poll_s
        self._next_poll = monotonic() + poll_s
        self._looks = list(_LOOKS_S)

    def wait(self, timeout_s: float) -> Sequence[str] | None:
        if monotonic() - self._announced > ANNOUNCED_S:
            self._announce()
            self._announced = monotonic()
        first_looks = bool(self._looks)
        longest_s = self._looks.pop(0) if first_looks else max(0.0, self._next_poll - monotonic())
        told = self._waiter.wait(min(timeout_s, longest_s))
        if (first_looks and not told) or monotonic() >= self._next_poll:
            self._next_poll = monotonic() + self._poll_s
            return None
        return _named(told)

    def close(self) -> None:
        self._waiter.close()


def _named(told: Sequence[str]) -> list[str] | None:
    return None if ALL in told else [id_ for each in told for id_ in each.split(",") if id_]
