"""Administration of queues: declaring, counting, purging, deleting, dead letters."""

from collections.abc import Sequence
from contextlib import suppress
from time import monotonic, sleep

from ...domain.errors import BackendUnavailable, QueueNotFound
from ...domain.queue import Queue
from ...domain.wording import quantity
from ...ports import CancelOutcome, DeadLetter, Failure, QueueCounts
from ..shared.chunks import in_chunks
from ..shared.error_messages import kind_conflict, not_declared
from ..shared.records import parse_moment, parse_queue
from .binary_format import boolean, float8, int4, int8, parse_array, parse_int, parse_ints, texts
from .binary_format import parse_float as _seconds
from .connection import Connection
from .errors import RefusedByServer, translated
from .session import Session
from .statements import Statements
from .table_versions import Tables

CHUNK = 1000
"""The most jobs that one transaction drops, so that others don't wait for it for long."""
_DROPPED = _MOVED = 5000
_LOCKED = b"locked"
"""What ``cancel_jobs`` answers of a job that another transaction is about to change; it soon ends."""
_LOCKED_S = 0.01


class Admin:
    """Calls on queues as a whole.

    Args:
        session: The way to the server.
        statements: The statements for the session's schema.
        tables: The tables of that schema.
    """

    def __init__(self, session: Session, statements: Statements, tables: Tables) -> None:
        self._session = session
        self._statements = statements
        self._tables = tables

    def declare(self, queue: Queue) -> None:
        """Create a queue, or find it as it is (ADM-1), and the tables where there are none.

        Jobs that were restored into another cluster get new places, before those of jobs to come (ADR 93).
        """
        name, kind = queue.name.encode(), queue.kind.encode()

        def work(connection: Connection) -> bytes | None:
            connection.execute(self._statements.drop_deleted, [int4(CHUNK)], 60.0)
            answer = connection.execute(self._statements.declare, [name, kind], 60.0)
            if not answer.rows:  # another declared it at the same time
                answer = connection.execute(self._statements.declare, [name, kind], 60.0)
            return answer.value(0, 0)

        self._tables.make()
        try:
            found = self._session.work(work)
        except RefusedByServer as error:  # the tables were dropped just now
            raise translated(error, self._session.settings.address, self._session.schema) from error
        if found != kind:
            raise kind_conflict(queue, (found or b"").decode(errors="backslashreplace"))
        mend, parameters = self._statements.mend_places, [name, int4(_MOVED)]
        while parse_int(self._session.look(mend, parameters, queue=queue.name).value(0, 0)):
            pass

    def find_key(self, queue: str) -> int:
        """Return the key of a queue, which no other queue ever has."""
        answer = self._session.look(self._statements.find_queue, [queue.encode()], queue=queue)
        if not answer.rows:
            raise not_declared(queue)
        return parse_int(answer.value(0, 0))

    def queues(self) -> list[Queue]:
        """List the queues, by name."""
        try:
            rows = self._session.look(self._statements.list_queues).all_rows()
        except RefusedByServer as error:
            if error.has_no_schema:
                return []
            raise
        found = [parse_queue((name or b"").decode(), (kind or b"").decode()) for name, kind in rows]
        return [queue for queue in found if queue is not None]

    def counts(self, queue: str) -> QueueCounts:
        """Count the jobs by state (CNT-1). Due jobs count as ready, and so do jobs whose lease has ended."""
        answer = self._session.look(self._statements.counts, [queue.encode()], queue=queue)
        if not answer.rows:
            raise not_declared(queue)
        placed, held, delayed, with_delay, dead = map(parse_int, answer.row(0))
        return QueueCounts(placed - held + with_delay - delayed, delayed, held, dead)

    def first_ready(self, queue: str) -> bytes | None:
        """Return the body of the first ready job; None if none is ready (CNT-2)."""
        answer = self._session.look(self._statements.first_ready, [queue.encode()], queue=queue)
        if not answer.rows:
            raise not_declared(queue)
        return answer.value(0, 0)

    def purge(self, queue: str) -> int:
        """Drop the jobs that wait (ADM-2)."""
        waiting, purged = self.counts(queue).waiting, 0
        # Jobs that were there when it began are always dropped. Jobs that are published meanwhile may be.
        while purged < waiting:
            answer = self._session.change(self._statements.purge, [queue.encode(), int4(CHUNK)], queue=queue)
            dropped = parse_int(answer.value(0, 0))
            if not dropped:
                break
            purged += dropped
        return purged

    def delete(self, queue: str) -> None:
        """Remove a queue with all that belongs to it (ADM-3)."""
        self.find_key(queue)  # raises QueueNotFound
        with suppress(QueueNotFound):  # it was deleted meanwhile, perhaps by a try whose answer was lost
            self._session.look(self._statements.delete_queue, [queue.encode()], queue=queue)
        while parse_int(self._session.look(self._statements.drop_deleted, [int4(_DROPPED)]).value(0, 0)):
            pass

    def cancel(self, queue: str, ids: Sequence[str], ttl_s: float) -> list[CancelOutcome]:
        """Cancel jobs, and say what became of each, in order (CAN-1, CAN-2)."""
        if not ids:
            self.find_key(queue)
        give_up = monotonic() + self._session.retry_timeout_s
        outcomes: dict[str, CancelOutcome] = {}
        for chunk in in_chunks(dict.fromkeys(ids), CHUNK):
            while chunk:
                parameters = [queue.encode(), texts(chunk), float8(ttl_s)]
                answer = self._session.change(self._statements.cancel_jobs, parameters, queue=queue)
                words = parse_array(answer.value(0, 0))
                outcomes |= {
                    id_: CancelOutcome((word or b"").decode())
                    for id_, word in zip(chunk, words, strict=True)
                    if word != _LOCKED
                }
                chunk = [id_ for id_ in chunk if id_ not in outcomes]
                if chunk and monotonic() >= give_up:
                    raise BackendUnavailable(
                        f"queue {queue!r}: couldn't cancel {quantity(len(chunk), 'job')}, as another "
                        "transaction holds them: try again"
                    )
                sleep(_LOCKED_S if chunk else 0.0)
        return [outcomes[id_] for id_ in ids]

    def dead_letters(self, queue: str, limit: int, offset: int) -> list[DeadLetter]:
        """List dead letters, oldest first (DLQ-1)."""
        parameters = [queue.encode(), int8(limit), int8(offset)]
        rows = self._session.look(self._statements.dead_letters, parameters, queue=queue).all_rows()
        if not rows:
            raise not_declared(queue)
        return [_letter(row) for row in rows if row[0] is not None]

    def redrive_or_discard(self, queue: str, ids: Sequence[str] | None, *, redrives: bool) -> int:
        """Redrive (DLQ-2) or discard (DLQ-3) dead jobs."""
        count = 0
        if ids is not None:
            self.find_key(queue)
            for chunk in in_chunks(dict.fromkeys(ids), CHUNK):
                count += self._act(queue, texts(chunk), 0, redrives)
            return count
        answer = self._session.look(self._statements.last_death, [queue.encode()], queue=queue)
        if not answer.rows:
            raise not_declared(queue)
        upto = parse_int(answer.value(0, 1))  # jobs that die meanwhile stay dead letters
        while done := self._act(queue, None, upto, redrives):
            count += done
        return count

    def _act(self, queue: str, ids: bytes | None, upto: int, redrives: bool) -> int:
        parameters = [queue.encode(), ids, int8(upto), int4(CHUNK), boolean(redrives)]
        answer = self._session.change(self._statements.redrive_or_discard, parameters, queue=queue)
        return parse_int(answer.value(0, 0))


def _letter(row: Sequence[bytes | None]) -> DeadLetter:
    id_, body, reason, error, attempt, crashes, died, failed, failures, _ = row
    history = zip(parse_ints(failed), parse_array(failures), strict=False)
    return DeadLetter(
        id=(id_ or b"").decode(),
        body=body or b"",
        reason=_text(reason),
        error=_text(error),
        attempt=parse_int(attempt),
        crashes=parse_int(crashes),
        died_at=parse_moment(_seconds(died)),
        history=tuple(Failure(number, _text(text)) for number, text in history),
    )


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="backslashreplace")
