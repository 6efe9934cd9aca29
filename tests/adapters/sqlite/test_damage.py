"""A damaged row costs its own job alone, whatever somebody else wrote into it."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mindtrace.jobs import Progress, PublishStatus, Queue, QueueCounts, QueueKind, SQLiteClient
from mindtrace.jobs.domain.errors import BackendError, QueueConflict
from mindtrace.jobs.ports import (
    Ack,
    Dead,
    DeadLetter,
    Failure,
    Message,
    Release,
    Retry,
    Settlement,
    SettleOutcome,
)

NONE_LEFT = QueueCounts(0, 0, 0, 0)
Sql = Callable[..., list[tuple[object, ...]]]


@pytest.fixture
def client(path: Path) -> Iterator[SQLiteClient]:
    """A client with the queue ``points`` declared; no power cut is to come."""
    with SQLiteClient(path, durability="snapshot") as client:
        client.declare(Queue("points"))
        yield client


@pytest.fixture
def sql(path: Path) -> Sql:
    """Another program that writes to the file."""

    def run(statement: str, *values: object) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            return db.execute(statement, values).fetchall()

    return run


def publish(client: SQLiteClient, *ids: str, delay_s: float = 0.0) -> None:
    client.publish("points", [Message(id_, b"{}", 0, delay_s) for id_ in ids])


def make_dead(client: SQLiteClient, *ids: str) -> None:
    """Publish jobs, and let them die."""
    publish(client, *ids)
    with client.open_consumer("points") as consumer:
        deliveries = consumer.receive(100, 0.0)
        consumer.settle([Dead(each.receipt, "rejected", "no") for each in deliveries])


def drain(client: SQLiteClient) -> list[str]:
    """Take and ack all there is, once it is ready, and return the ids."""
    ids: list[str] = []
    with client.open_consumer("points") as consumer:
        while (deliveries := consumer.receive(100, 0.0)) or client.counts("points").waiting:
            assert len(ids) < 100, client.counts("points")
            ids += [each.id for each in deliveries]
            consumer.settle([Ack(each.receipt) for each in deliveries])
    return ids


def letters(client: SQLiteClient) -> list[DeadLetter]:
    return client.dead_letters("points", limit=1000)


# -- whatever is written into whichever column ----------------------------------------------------

ODD_VALUES = {
    "NULL": "NULL",
    "text": "'many'",
    "text of a number": "'7'",
    "a blob": "x'ff00'",
    "text that isn't UTF-8": "CAST(x'ff' AS TEXT)",
    "a negative number": "-5",
    "zero": "0",
    "a huge number": "9223372036854775807",
    "a fraction": "0.5",
    "infinity": "9e999",
    "a line's end": "'a' || char(10) || 'b'",
}
COLUMNS = {
    "job": ("queue", "id", "priority", "attempt", "number", "crashes", "history", "body"),
    "ready": ("queue", "rank", "seq"),
    "delay": ("queue", "due", "seq"),
    "lease": ("queue", "ends", "seq", "number", "rank", "progress"),
    "dead": ("queue", "seq", "reason", "error", "died"),
    "queue": ("ready", "delayed", "leased", "dead", "ended", "moment"),
    "file": ("boot", "base", "ticket"),
}
STATES = ("ready", "delayed", "expired", "held", "dead")


class Scene:
    """A queue with three jobs in each state, of which the second is to be spoilt."""

    def __init__(self, client: SQLiteClient, kind: QueueKind) -> None:
        if client.queues():
            client.delete("points")
        client.declare(Queue("points", kind))
        self.client = client
        self.ids = {state: [f"{state}-{number}" for number in range(3)] for state in STATES}
        make_dead(client, *self.ids["dead"])
        publish(client, *self.ids["held"])
        self.holder = client.open_consumer("points")
        self.held = self.holder.receive(3, 0.0)
        for delivery in self.held:
            self.holder.report(delivery.receipt, Progress(1, 2))
        publish(client, *self.ids["expired"])
        client.open_consumer("points", lease_s=0.0001).receive(3, 0.0)
        publish(client, *self.ids["delayed"], delay_s=0.0001)
        publish(client, *self.ids["ready"])

    def rows_to_spoil(self, table: str, sql: Sql) -> list[str]:
        """Conditions, each of the one row in ``table`` of a job that is to be spoilt."""
        if table in ("queue", "file"):
            return ["1"]
        victims = ", ".join(f"'{self.ids[state][1]}'" for state in STATES)
        seqs = sql(
            f"SELECT seq FROM {table} WHERE seq IN (SELECT seq FROM job WHERE id IN ({victims})) ORDER BY seq"
        )
        return [f"seq = {seq}" for (seq,) in seqs]

    def neighbours(self, *states: str) -> set[str]:
        return {id_ for state in states for id_ in (self.ids[state][0], self.ids[state][2])}

    def live_on(self) -> None:
        """Make every call there is: the neighbours live as if nothing had happened."""
        client = self.client
        client.counts("points")
        messages = client.progress("points")
        assert {id_: messages.get(id_) for id_ in self.neighbours("held")} == dict.fromkeys(
            self.neighbours("held"), Progress(1, 2)
        )
        outcomes = self.holder.settle([Retry(each.receipt, 0.0, "again") for each in self.held])
        for delivery, outcome in zip(self.held, outcomes.outcomes, strict=True):
            assert outcome is SettleOutcome.OK or delivery.id not in self.neighbours("held")
        came = drain(client)
        living = self.neighbours("held", "expired", "delayed", "ready")
        assert sorted(id_ for id_ in came if id_ in living) == sorted(living)

        listed = {letter.id: letter for letter in letters(client)}
        assert self.neighbours("dead") <= listed.keys()
        for id_ in listed:
            client.result("points", id_)
        some = self.ids["dead"][0]
        assert client.redrive("points", [some]) == 1
        assert client.redrive("points") == len(listed) - 1
        assert self.neighbours("dead") <= set(drain(client))
        client.purge("points")
        assert drain(client) == []
        client.discard("points")
        counts = client.counts("points")
        assert counts in (NONE_LEFT, QueueCounts(0, 0, 1, 0)), counts  # one may be leased for long
        assert letters(client) == []


CASES = [(QueueKind.FIFO, table, column) for table, columns in COLUMNS.items() for column in columns] + [
    (kind, table, column)
    for kind in (QueueKind.STACK, QueueKind.PRIORITY)
    for table, column in (("job", "priority"), ("ready", "rank"), ("lease", "rank"), ("file", "ticket"))
]


@pytest.mark.parametrize(("kind", "table", "column"), CASES)
def test_an_odd_value_in_any_column_costs_at_most_its_own_job(
    client: SQLiteClient, sql: Sql, kind: QueueKind, table: str, column: str
) -> None:
    """No call raises, and the neighbours run once."""
    for what, value in ODD_VALUES.items():
        if column in ("seq", "queue") and "number" in what:
            continue  # it may be another's
        scene = Scene(client, kind)
        rows = scene.rows_to_spoil(table, sql)
        for which in [" OR ".join(rows), *rows]:
            try:
                sql(f"UPDATE {table} SET {column} = {value} WHERE {which}")
            except sqlite3.IntegrityError:  # not in so many rows at once, or in none
                continue
            try:
                scene.live_on()
            except BaseException as error:
                error.add_note(f"{table}.{column} is {what} where {which}")
                raise
            break


# -- one kind of damage each ----------------------------------------------------------------------


def test_a_job_without_a_row_is_dropped_and_told(
    client: SQLiteClient, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    publish(client, "one", "two", "three")
    sql("DELETE FROM job WHERE id = 'two'")

    assert drain(client) == ["one", "three"]
    assert client.counts("points") == NONE_LEFT
    assert "queue points: an entry for job number 2 was dropped: it has no body" in caplog.text


def test_a_job_with_a_damaged_row_is_buried_and_told(
    client: SQLiteClient, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    publish(client, "one", "two", "three")
    sql("UPDATE job SET attempt = 'many' WHERE id = 'two'")

    assert drain(client) == ["one", "three"]
    (letter,) = letters(client)
    assert (letter.id, letter.body, letter.reason) == ("two", b"{}", "malformed")
    assert letter.error == "its row is damaged"
    assert "queue points: job two is dead: malformed: its row is damaged" in caplog.text
    assert client.redrive("points", ["two"]) == 1
    assert drain(client) == ["two"]


def test_a_body_that_is_text_is_delivered_as_bytes(client: SQLiteClient, sql: Sql) -> None:
    """As somebody leaves it who corrects a payload by hand."""
    publish(client, "one")
    sql('UPDATE job SET body = \'{"by": "hand"}\'')

    with client.open_consumer("points") as consumer:
        (delivery,) = consumer.receive(1, 0.0)
    assert delivery.body == b'{"by": "hand"}'


@pytest.mark.parametrize("id_", ["'a' || char(10)", "x'ff00'", "CAST(x'ff' AS TEXT)", "''"])
def test_a_job_whose_id_can_not_name_it_is_buried_under_a_name_that_can(
    client: SQLiteClient, sql: Sql, caplog: pytest.LogCaptureFixture, id_: str
) -> None:
    publish(client, "one", "two", "three")
    sql(f"UPDATE job SET id = {id_} WHERE id = 'two'")

    assert drain(client) == ["one", "three"]
    (letter,) = letters(client)
    assert (letter.id, letter.error) == ("malformed-1", "its id can't name a job")
    assert "which commands call malformed-1, is dead: malformed: its id can't" in caplog.text
    assert "\n" not in caplog.records[0].getMessage()
    assert client.redrive("points", ["malformed-1", "malformed-7", "malformed-x"]) == 1
    assert drain(client) == []
    assert client.discard("points", [letters(client)[0].id]) == 1
    assert client.counts("points") == NONE_LEFT


def test_a_dead_letter_without_a_row_is_listed_and_discarded(client: SQLiteClient, sql: Sql) -> None:
    make_dead(client, "one", "two")
    sql("DELETE FROM job WHERE id = 'one'")

    assert [letter.id for letter in letters(client)] == ["malformed-1", "two"]
    assert client.counts("points").dead == 2
    assert client.redrive("points", ["malformed-1"]) == 1
    assert client.discard("points") == 1
    assert drain(client) == []


@pytest.mark.parametrize("history", ["{", "7", '[["one", 2], [1, "kept"]]', "[" * 2000])
def test_a_damaged_history_costs_no_settlement(client: SQLiteClient, sql: Sql, history: str) -> None:
    publish(client, "one", "two")
    with client.open_consumer("points") as consumer:
        first, second = consumer.receive(2, 0.0)
        sql("UPDATE job SET history = ? WHERE id = 'one'", history)
        outcomes = consumer.settle([Retry(first.receipt, 0.0, "again"), Ack(second.receipt)]).outcomes
        assert outcomes == [SettleOutcome.OK] * 2
        (delivery,) = consumer.receive(1, 0.0)
        assert delivery.attempt == 2
        consumer.settle([Dead(delivery.receipt, "rejected", "the last")])

    kept = (Failure(1, "kept"),) if "kept" in history else ()
    assert letters(client)[0].history == (*kept, Failure(1, "again"))


@pytest.mark.parametrize(
    "end",
    [lambda r: Retry(r, 0.0, "x"), lambda r: Dead(r, "x", "x"), Release, lambda r: Release(r, 60.0)],
    ids=["retry", "dead", "release", "release later"],
)
def test_settling_a_job_whose_row_is_gone_is_lost(
    client: SQLiteClient, sql: Sql, end: Callable[[str], Settlement]
) -> None:
    publish(client, "one", "two")
    with client.open_consumer("points") as consumer:
        first, second = consumer.receive(2, 0.0)
        sql("DELETE FROM job WHERE id = 'one'")
        answer = consumer.settle([end(first.receipt), Ack(second.receipt)])

    assert answer.outcomes == [SettleOutcome.LOST, SettleOutcome.OK]
    assert client.counts("points") == NONE_LEFT


def test_each_of_a_batch_is_told_whether_its_own_lease_stood(client: SQLiteClient, sql: Sql) -> None:
    publish(client, "one", "two", "three", "four")
    with client.open_consumer("points") as consumer:
        receipts = [each.receipt for each in consumer.receive(4, 0.0)]
        sql("DELETE FROM lease WHERE seq IN (SELECT seq FROM job WHERE id IN ('two', 'four'))")
        answer = consumer.settle([Ack(receipt) for receipt in receipts])

    assert answer.outcomes == [SettleOutcome.OK, SettleOutcome.LOST] * 2


# -- counts that don't agree with the rows --------------------------------------------------------


@pytest.mark.parametrize("ready", [0, -3, 1, 4, 7, 2**60])
def test_a_wrong_count_of_ready_jobs_hides_none_and_is_corrected(
    client: SQLiteClient, sql: Sql, caplog: pytest.LogCaptureFixture, ready: int
) -> None:
    publish(client, "one", "two", "three")
    sql("UPDATE queue SET ready = ?", ready)

    with client.open_consumer("points") as consumer:
        came = [each.id for _ in range(3) for each in consumer.receive(2, 1.0)]
        assert came == ["one", "two", "three"]
        assert consumer.receive(2, 0.0) == []
        assert client.counts("points") == QueueCounts(0, 0, 3, 0)
    assert "queue points: its counts were wrong, and are right again" in caplog.text


@pytest.mark.parametrize("column", ["delayed", "leased", "dead"])
@pytest.mark.parametrize("count", [0, -3, 5])
def test_any_wrong_count_is_corrected_in_the_end(
    client: SQLiteClient, sql: Sql, column: str, count: int
) -> None:
    make_dead(client, "three")
    publish(client, "one", "two", delay_s=0.001)
    sql(f"UPDATE queue SET {column} = ?", count)
    assert sorted(drain(client)) == ["one", "two"]
    with client.open_consumer("points") as consumer:
        consumer.receive(1, 0.0)
    assert client.discard("points") == 1

    assert client.counts("points") == NONE_LEFT


def test_purging_drops_what_is_there_whatever_the_counts_say(client: SQLiteClient, sql: Sql) -> None:
    publish(client, "one", "two")
    sql("UPDATE queue SET ready = 0")
    assert client.purge("points") == 2

    publish(client, "three")
    sql("UPDATE queue SET ready = 9")
    assert client.purge("points") == 1
    assert client.counts("points") == NONE_LEFT


@pytest.mark.parametrize("value", ["'many'", "CAST(x'ff' AS TEXT)", "x'ff'", "9e999", "-1", "0.5"])
@pytest.mark.parametrize("column", ["ready.seq", "ready.rank", "delay.seq", "delay.due"])
def test_purging_gets_past_a_damaged_row(client: SQLiteClient, sql: Sql, column: str, value: str) -> None:
    publish(client, "one", "two", "three")
    publish(client, "four", "five", "six", delay_s=60.0)
    table, _, name = column.partition(".")
    sql(f"UPDATE {table} SET {name} = {value} WHERE seq IN (2, 5)")

    client.purge("points")

    counts = client.counts("points")
    assert counts.waiting == 0
    assert client.discard("points") == counts.dead <= 1
    assert sql("SELECT count(*) FROM ready UNION ALL SELECT count(*) FROM delay") == [(0,), (0,)]


def test_a_job_that_stands_nowhere_is_a_dead_letter_once_the_counts_tell(
    client: SQLiteClient, sql: Sql
) -> None:
    publish(client, "one", "two", "three")
    sql("DELETE FROM ready WHERE rank = 2")

    assert drain(client) == ["one", "three"]
    (letter,) = letters(client)
    assert (letter.id, letter.reason) == ("two", "malformed")
    assert letter.error.startswith("it stood nowhere in the queue")
    assert client.redrive("points") == 1
    assert drain(client) == ["two"]


def test_a_count_of_numbers_that_is_too_low_makes_no_job_a_duplicate(client: SQLiteClient, sql: Sql) -> None:
    """Nor does it put one into the place of another."""
    publish(client, "one", "two", "three")
    with client.open_consumer("points") as consumer:
        (first,) = consumer.receive(1, 0.0)
        consumer.settle([Retry(first.receipt, 0.0, "again")])
    sql("UPDATE file SET ticket = 0")

    outcomes = client.publish("points", [Message("four", b"{}"), Message("five", b"{}")])

    assert [outcome.status for outcome in outcomes] == [PublishStatus.ACCEPTED] * 2
    assert drain(client) == ["two", "three", "one", "four", "five"]


def test_a_clock_that_was_set_back_in_the_file_is_set_anew(
    client: SQLiteClient, sql: Sql, path: Path
) -> None:
    publish(client, "one")
    sql("UPDATE file SET base = 0")

    with SQLiteClient(path) as other:
        publish(other, "two", delay_s=0.001)
        assert drain(other) == ["one", "two"]


# -- what is told of it -------------------------------------------------------------------------------


def test_a_queue_of_an_unknown_kind_is_told_and_the_others_are_served(client: SQLiteClient, sql: Sql) -> None:
    client.declare(Queue("odd"))
    sql("UPDATE queue SET kind = 'ring' WHERE name = 'odd'")
    publish(client, "one")

    with pytest.raises(BackendError, match="queue 'odd' is of an unknown kind"):
        client.counts("odd")
    with pytest.raises(QueueConflict, match="already has the type ring"):
        client.declare(Queue("odd"))
    assert client.queues() == [Queue("points")]
    assert drain(client) == ["one"]
    assert "'odd' of kind 'ring' can't be a queue of ours" in _told(client, "queues")


def test_the_doctor_tells_of_counts_and_rows_that_do_not_agree(client: SQLiteClient, sql: Sql) -> None:
    publish(client, "one", "two", "three")
    assert _told(client, "records") == ""

    sql("DELETE FROM ready WHERE rank = 2")
    messages = _told(client, "records")
    assert "counts [3, 0, 0, 0] jobs (ready, delayed, in flight, dead); [2, 0, 0, 0] are there" in messages
    assert "1 job in no state, never run" in messages

    sql("DELETE FROM job")
    assert "2 entries without a job" in _told(client, "records")


def _told(client: SQLiteClient, subject: str) -> str:
    return " ".join(finding.what for finding in client.diagnose() if finding.subject == subject)
