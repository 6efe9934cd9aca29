"""Records in Redis that are damaged, foreign or very many: each costs itself alone.

A plain driver damages them, in a namespace of the test's own.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha1
from secrets import token_hex
from typing import Any

import pytest
from redis import Redis

from brokers.redis_server import Address
from mindtrace.jobs import RedisClient
from mindtrace.jobs.adapters.redis.errors import QueueDamaged
from mindtrace.jobs.adapters.redis.keys import QueueKeys, ResultKeys
from mindtrace.jobs.adapters.redis.scripts import SETTLE_AND_TAKE, Script
from mindtrace.jobs.adapters.redis.transport import Argument
from mindtrace.jobs.domain import Progress, Queue, QueueKind
from mindtrace.jobs.domain.errors import QueueConflict
from mindtrace.jobs.ports import (
    Ack,
    Dead,
    EndedJob,
    Failure,
    JobResult,
    Message,
    QueueCounts,
    ResultStatus,
    Retry,
    SettleOutcome,
)


@dataclass(frozen=True)
class DamagedQueue:
    """One queue, and a plain driver to damage it with."""

    client: RedisClient
    admin: Redis
    keys: QueueKeys

    def declare(self, kind: QueueKind = QueueKind.FIFO) -> None:
        self.client.declare(Queue("jobs", kind))

    def publish(self, *ids: str, body: bytes = b"{}") -> None:
        self.client.publish("jobs", [Message(id_, body) for id_ in ids])

    def redeclare(self, kind: QueueKind) -> None:
        self.client.delete("jobs")
        self.declare(kind)

    def drain(self) -> list[str]:
        """Take and ack all there is, once it is ready, and return the ids."""
        ids = []
        with self.client.open_consumer("jobs") as consumer:
            while (counts := self.client.counts("jobs")).waiting or counts.in_flight:
                assert len(ids) < 1000
                deliveries = consumer.receive(100, 60.0)
                ids += [delivery.id for delivery in deliveries]
                consumer.settle([Ack(delivery.receipt) for delivery in deliveries])
        return ids

    def expect_dead(self, id_: str, error: str) -> None:
        """Demand that this job alone is left, dead as malformed, with its body."""
        assert self.client.counts("jobs") == QueueCounts(0, 0, 0, 1)
        (letter,) = self.client.dead_letters("jobs")
        found = (letter.id, letter.body, letter.reason, letter.error)
        assert found == (id_, b"{}", "malformed", error)

    def kill_all(self) -> None:
        """Make every ready job a dead letter."""
        with self.client.open_consumer("jobs") as consumer:
            while deliveries := consumer.receive(500, 0.0):
                consumer.settle([Dead(delivery.receipt, "rejected", "no") for delivery in deliveries])


@pytest.fixture
def damaged(redis_address: Address) -> Iterator[DamagedQueue]:
    namespace = f"damage-{token_hex(4)}"
    with redis_address.client(namespace) as client, redis_address.admin() as admin:
        damaged = DamagedQueue(client, admin, QueueKeys(namespace, "jobs"))
        damaged.declare()
        yield damaged
        client.delete("jobs")


# -- one damaged record among neighbours ----------------------------------------------------------

NEIGHBOURS = [f"job-{number}" for number in range(20)]
VICTIM = "victim"

Harm = Callable[[Redis, QueueKeys], object]


def replaced_record(record: bytes) -> Harm:
    return lambda admin, keys: admin.hset(keys.state, VICTIM, record)


def packed(priority: int, attempt: int, place: float) -> bytes:
    return struct.pack(">BIIId", priority, attempt, 0, 0, place)


BAD_RECORDS = {
    "empty": b"",
    "of one byte": b"x",
    "cut short": packed(0, 1, 0.0)[:-1],
    "with a priority of 10": packed(10, 1, 0.0),
    "with an attempt of 0": packed(0, 0, 0.0),
    "with a place that is no number": packed(0, 1, float("nan")),
    "with an infinite place": packed(0, 1, float("inf")),
    "with a negative place": packed(0, 1, -1.0),
}


@pytest.mark.parametrize("kind", QueueKind)
@pytest.mark.parametrize("record", BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_a_ready_job_with_a_damaged_record_is_buried_and_its_neighbours_run(
    damaged: DamagedQueue, caplog: pytest.LogCaptureFixture, kind: QueueKind, record: bytes
) -> None:
    damaged.redeclare(kind)
    damaged.publish(*NEIGHBOURS[:10], VICTIM, *NEIGHBOURS[10:])
    damaged.admin.hset(damaged.keys.state, VICTIM, record)

    assert sorted(damaged.drain()) == sorted(NEIGHBOURS)
    damaged.expect_dead(VICTIM, "its record in the hash `state` is damaged")
    assert f"job {VICTIM} is dead: malformed: its record in the hash `state` is damaged" in caplog.text


@pytest.mark.parametrize("kind", QueueKind)
@pytest.mark.parametrize("record", BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_a_leased_job_with_a_damaged_record_is_buried_once_its_lease_ends(
    damaged: DamagedQueue, kind: QueueKind, record: bytes
) -> None:
    """The sweep that takes back what was leased too long takes its neighbours back."""
    damaged.redeclare(kind)
    damaged.publish(*NEIGHBOURS[:10], VICTIM, *NEIGHBOURS[10:])
    damaged.client.open_consumer("jobs", lease_s=0.001).receive(100, 0.0)  # and is never heard of again
    damaged.admin.hset(damaged.keys.state, VICTIM, record)

    assert sorted(damaged.drain()) == sorted(NEIGHBOURS)
    damaged.expect_dead(VICTIM, "its record in the hash `state` is damaged")


@pytest.mark.parametrize("kind", QueueKind)
@pytest.mark.parametrize("record", BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_a_delayed_job_with_a_damaged_record_is_buried_once_it_is_due(
    damaged: DamagedQueue, kind: QueueKind, record: bytes
) -> None:
    damaged.redeclare(kind)
    ids = [*NEIGHBOURS[:10], VICTIM, *NEIGHBOURS[10:]]
    damaged.client.publish("jobs", [Message(id_, b"{}", delay_s=0.001) for id_ in ids])
    damaged.admin.hset(damaged.keys.state, VICTIM, record)

    assert sorted(damaged.drain()) == sorted(NEIGHBOURS)
    damaged.expect_dead(VICTIM, "its record in the hash `state` is damaged")


GHOSTS: dict[str, Harm] = {
    "ready": lambda admin, keys: admin.lpush(keys.ready, VICTIM),
    "due": lambda admin, keys: admin.zadd(keys.delay, {VICTIM: 1}),
    "leased": lambda admin, keys: admin.zadd(keys.run, {VICTIM: 1}),
    "leased, with a record": lambda admin, keys: (
        admin.zadd(keys.run, {VICTIM: 1}),
        admin.hset(keys.state, VICTIM, packed(0, 1, 0.0) + b"someone:1"),
    ),
}


@pytest.mark.parametrize("harm", GHOSTS.values(), ids=GHOSTS)
def test_an_id_without_a_body_is_dropped_and_told_and_its_neighbours_run(
    damaged: DamagedQueue, caplog: pytest.LogCaptureFixture, harm: Harm
) -> None:
    damaged.publish(*NEIGHBOURS)
    harm(damaged.admin, damaged.keys)

    assert damaged.drain() == NEIGHBOURS
    assert f"queue jobs: job {VICTIM} was dropped: it has no body" in caplog.text
    assert damaged.client.counts("jobs") == QueueCounts(0, 0, 0, 0)
    assert not damaged.admin.hexists(damaged.keys.state, VICTIM)


def test_a_consumer_finds_what_stands_behind_more_ghosts_than_it_takes_at_once(damaged: DamagedQueue) -> None:
    damaged.publish("last")
    damaged.admin.lpush(damaged.keys.ready, *[f"ghost-{number}" for number in range(30)])

    with damaged.client.open_consumer("jobs") as consumer:
        (delivery,) = consumer.receive(10, 60.0)

    assert delivery.id == "last"


UNFIT_IDS = [b"\xff\xfe", b"a,b", b"x\ny", b"", b"x" * 129, b"a|b", "\u202e".encode()]


@pytest.mark.parametrize("id_", UNFIT_IDS, ids=repr)
def test_a_job_whose_id_can_not_name_one_is_buried_under_another(
    damaged: DamagedQueue, caplog: pytest.LogCaptureFixture, id_: bytes
) -> None:
    """So that commands can show it, redrive it and discard it."""
    damaged.publish(*NEIGHBOURS[:10])
    damaged.admin.hset(damaged.keys.body, id_, b"{}")
    damaged.admin.rpush(damaged.keys.ready, id_)
    damaged.publish(*NEIGHBOURS[10:])

    assert damaged.drain() == NEIGHBOURS
    name = f"malformed-{sha1(id_).hexdigest()}"
    damaged.expect_dead(name, "its id can't name a job, so it was given another")
    assert len(caplog.records) == 1
    assert "\n" not in caplog.records[0].getMessage()

    assert damaged.client.redrive("jobs", [name]) == 1
    assert damaged.drain() == [name]
    assert not damaged.admin.hlen(damaged.keys.body)


def test_a_job_that_stands_in_the_queue_twice_is_delivered_once(damaged: DamagedQueue) -> None:
    damaged.publish("first", "second")
    damaged.admin.lpush(damaged.keys.ready, "second")

    with damaged.client.open_consumer("jobs") as consumer:
        together = consumer.receive(10, 0.0)
        assert sorted(delivery.id for delivery in together) == ["first", "second"]
        assert set(consumer.settle([Ack(delivery.receipt) for delivery in together]).outcomes) == {
            SettleOutcome.OK
        }
        assert consumer.receive(10, 0.0) == []
    assert damaged.client.counts("jobs") == QueueCounts(0, 0, 0, 0)


def test_a_job_in_flight_that_stands_in_the_queue_as_well_stays_with_its_consumer(
    damaged: DamagedQueue,
) -> None:
    damaged.publish("job")
    with damaged.client.open_consumer("jobs") as first, damaged.client.open_consumer("jobs") as second:
        (delivery,) = first.receive(1, 0.0)
        damaged.admin.rpush(damaged.keys.ready, "job")

        assert second.receive(1, 0.0) == []
        assert first.settle([Ack(delivery.receipt)]).outcomes == [SettleOutcome.OK]


HISTORIES = ["{", "7", "[7]", '[["one", "two"]]', '{"1": 2}', "[" * 1500, "\xff", '[[1, "kept"], [2]]']


@pytest.mark.parametrize("history", HISTORIES, ids=lambda text: text[:20])
def test_a_damaged_history_costs_no_settlement_and_no_listing(damaged: DamagedQueue, history: str) -> None:
    damaged.publish(VICTIM, "neighbour")
    with damaged.client.open_consumer("jobs") as consumer:
        first, second = consumer.receive(2, 0.0)
        damaged.admin.hset(damaged.keys.history, VICTIM, history.encode("latin-1"))
        outcomes = consumer.settle([Retry(first.receipt, 0.0, "again"), Ack(second.receipt)]).outcomes
        assert outcomes == [SettleOutcome.OK] * 2
        (delivery,) = consumer.receive(1, 0.0)
        consumer.settle([Dead(delivery.receipt, "rejected", "the last")])

    (letter,) = damaged.client.dead_letters("jobs")
    kept = (Failure(1, "kept"),) if "kept" in history else ()
    assert letter.history == (*kept, Failure(1, "again"))
    damaged.admin.hset(damaged.keys.history, VICTIM, history.encode("latin-1"))
    (letter,) = damaged.client.dead_letters("jobs")
    assert letter.history == kept


LETTER_HARMS: dict[str, Harm] = {
    "no record": lambda admin, keys: admin.hdel(keys.state, VICTIM),
    "a damaged record": replaced_record(b"x"),
    "no letter": lambda admin, keys: admin.hdel(keys.letter, VICTIM),
    "a letter that is no JSON": lambda admin, keys: admin.hset(keys.letter, VICTIM, "{"),
    "a letter of another shape": lambda admin, keys: admin.hset(keys.letter, VICTIM, "[1, 2]"),
    "a letter that is no text": lambda admin, keys: admin.hset(keys.letter, VICTIM, b"\xff"),
    "a moment out of range": lambda admin, keys: admin.hset(keys.letter, VICTIM, '["a", "b", 1e300]'),
    "no body": lambda admin, keys: admin.hdel(keys.body, VICTIM),
}


@pytest.mark.parametrize("harm", LETTER_HARMS.values(), ids=LETTER_HARMS)
def test_a_damaged_dead_letter_is_listed_redriven_and_discarded(damaged: DamagedQueue, harm: Harm) -> None:
    ids = [*NEIGHBOURS[:2], VICTIM, *NEIGHBOURS[2:4]]
    damaged.publish(*ids)
    damaged.kill_all()
    harm(damaged.admin, damaged.keys)

    assert [letter.id for letter in damaged.client.dead_letters("jobs")] == ids
    damaged.client.result("jobs", VICTIM)  # as it is kept, or none
    assert damaged.client.redrive("jobs") == 5
    assert sorted(damaged.drain()) == sorted(set(ids) - ({VICTIM} if "no body" in _name(harm) else set()))

    damaged.publish(*ids)
    damaged.kill_all()
    harm(damaged.admin, damaged.keys)
    assert damaged.client.discard("jobs", ids) == 5
    assert damaged.client.counts("jobs") == QueueCounts(0, 0, 0, 0)


def _name(harm: Harm) -> str:
    return next(name for name, each in LETTER_HARMS.items() if each is harm)


@pytest.mark.parametrize("number", ["many", "-7", "1e300", "nan", ""])
def test_a_damaged_counter_of_deaths_costs_no_settlement(damaged: DamagedQueue, number: str) -> None:
    """And the dead letters stay in the order in which they died."""
    damaged.publish("one", "two")
    damaged.kill_all()
    damaged.admin.hset(damaged.keys.meta, "deaths", number)
    damaged.publish("three", "four")
    damaged.kill_all()

    ids = ["one", "two", "three", "four"]
    assert [letter.id for letter in damaged.client.dead_letters("jobs")] == ids
    assert damaged.client.redrive("jobs") == 4


@pytest.mark.parametrize("number", ["many", "-7", "1e300", "nan", str(2**60)])
def test_a_damaged_counter_of_places_costs_no_publish(damaged: DamagedQueue, number: str) -> None:
    damaged.redeclare(QueueKind.PRIORITY)
    damaged.admin.hset(damaged.keys.meta, "place", number)
    damaged.publish(*NEIGHBOURS)

    assert damaged.drain() == NEIGHBOURS


@pytest.mark.parametrize("score", [float("inf"), float("-inf"), 1e300, -1.0])
def test_a_job_with_an_impossible_score_is_buried(damaged: DamagedQueue, score: float) -> None:
    damaged.redeclare(QueueKind.PRIORITY)
    damaged.publish(*NEIGHBOURS, VICTIM)
    damaged.admin.zadd(damaged.keys.ready, {VICTIM: score})

    assert damaged.drain() == NEIGHBOURS
    damaged.expect_dead(VICTIM, "its record in the hash `state` is damaged")


def test_a_result_that_is_cut_short_is_none(damaged: DamagedQueue) -> None:
    damaged.admin.hset(damaged.keys.result, "job", b"short")

    assert damaged.client.result("jobs", "job") is None


@pytest.mark.parametrize(
    ("record", "result"),
    [
        (b"", JobResult(ResultStatus.DONE)),
        (b"x", JobResult(ResultStatus.DONE)),
        (b"f\xff", JobResult(ResultStatus.FAILED, error="\\xff")),
    ],
)
def test_a_damaged_result_of_another_broker_is_read_as_far_as_it_can_be(
    redis_address: Address, damaged: DamagedQueue, record: bytes, result: JobResult
) -> None:
    keys = ResultKeys(damaged.keys.namespace, "jobs")
    with redis_address.results(damaged.keys.namespace) as store:
        store.put("jobs", [EndedJob("job", JobResult(ResultStatus.DONE), 60.0)])
        damaged.admin.hset(keys.kept, "job", record)
        assert store.get("jobs", "job") == result
        store.forget("jobs")


def test_damaged_progress_is_left_out(damaged: DamagedQueue) -> None:
    damaged.publish("one", "two", "three")
    with damaged.client.open_consumer("jobs") as consumer:
        for delivery in consumer.receive(3, 0.0):
            consumer.report(delivery.receipt, Progress(1, 2))
        damaged.admin.hset(damaged.keys.progress, "two", "{")
        damaged.admin.hset(damaged.keys.progress, "three", "[-1, 2]")
        damaged.admin.hset(damaged.keys.progress, b"\xff", "[1, 2]")

        assert damaged.client.progress("jobs") == {"one": Progress(1, 2)}
        assert damaged.client.progress("jobs", ["one", "two"]) == {"one": Progress(1, 2)}


def test_what_jobs_told_that_ended_is_forgotten_though_nobody_asks_for_progress(
    damaged: DamagedQueue,
) -> None:
    damaged.publish(*[f"job-{number}" for number in range(500)])
    with damaged.client.open_consumer("jobs") as consumer:
        for _ in range(500):
            (delivery,) = consumer.receive(1, 0.0)
            consumer.report(delivery.receipt, Progress(1, 2))
            consumer.settle([Ack(delivery.receipt)])

    assert damaged.admin.hlen(damaged.keys.progress) <= 110


def test_a_job_that_ended_tells_no_progress_any_more(damaged: DamagedQueue) -> None:
    damaged.publish("job")
    with damaged.client.open_consumer("jobs", lease_s=0.001) as consumer:
        (delivery,) = consumer.receive(1, 0.0)
        damaged.drain()
        consumer.report(delivery.receipt, Progress(1, 2))

    assert not damaged.admin.exists(damaged.keys.progress)


def test_an_answer_that_is_repeated_and_has_an_odd_id_delivers_nothing_twice(damaged: DamagedQueue) -> None:
    """Where ids can't be told apart any more, their leases run out."""
    keys = damaged.keys.of(SETTLE_AND_TAKE, "me")
    damaged.admin.hset(damaged.keys.body, "a,b", "{}")
    damaged.admin.rpush(damaged.keys.ready, "a,b")
    ask = partial(damaged.client._redis.run, SETTLE_AND_TAKE, keys, [1, "me", 60_000, 60_000, 10, 0])

    assert ask()[4] == [b"a,b"]
    assert ask()[4] == []
    assert damaged.client.counts("jobs") == QueueCounts(0, 0, 1, 0)


# -- what isn't a queue of ours -------------------------------------------------------------------


def test_keys_that_only_look_like_a_queue_are_not_listed_and_told_by_the_doctor(
    damaged: DamagedQueue,
) -> None:
    start = damaged.keys.meta.removesuffix("jobs}:meta").encode()
    damaged.admin.hset(start + b"\xff}:meta", "kind", "fifo")
    damaged.admin.hset(start + b"odd}:meta", "kind", "ring")
    try:
        assert damaged.client.queues() == [Queue("jobs")]
        told = [finding.what for finding in damaged.client.diagnose() if finding.subject == "queues"]
        assert told[0] == "'odd' of kind 'ring' can't be a queue of ours"
        assert told[1].endswith("xff' of kind 'fifo' can't be a queue of ours")
    finally:
        damaged.admin.delete(start + b"\xff}:meta", start + b"odd}:meta")


def test_a_queue_without_a_layout_is_refused_in_words(damaged: DamagedQueue) -> None:
    damaged.admin.hdel(damaged.keys.meta, "layout")

    with pytest.raises(QueueConflict, match="its layout is unknown"):
        damaged.declare()


@pytest.mark.parametrize("what", ["ready", "body", "state", "delay", "run"])
def test_a_key_of_the_wrong_type_is_told_and_named_by_the_doctor(damaged: DamagedQueue, what: str) -> None:
    key = getattr(damaged.keys, what)
    damaged.admin.delete(key)
    damaged.admin.set(key, "somebody's")

    def use_it() -> None:
        damaged.client.publish("jobs", [Message("job", b"{}"), Message("later", b"{}", delay_s=60.0)])
        damaged.drain()

    with pytest.raises(QueueDamaged, match="queue 'jobs': one of its keys in Redis has the wrong type"):
        use_it()
    told = [finding.what for finding in damaged.client.diagnose() if finding.subject == "records"]
    type_ = "list" if what == "ready" else "hash" if what in ("body", "state") else "zset"
    assert told == [f"queue 'jobs': its key {key} is a string, and should be a {type_}"]
    damaged.admin.delete(key)


def test_the_doctor_counts_jobs_without_a_place_and_places_without_a_job(damaged: DamagedQueue) -> None:
    damaged.admin.hset(damaged.keys.body, "lost", "{}")
    assert "1 job with a body but no place" in _records(damaged)

    damaged.admin.rpush(damaged.keys.ready, "lost", "ghost")
    assert "1 entry without a job" in _records(damaged)

    damaged.publish("sound")
    damaged.drain()
    damaged.publish("another")
    assert _records(damaged) == ""


def _records(damaged: DamagedQueue) -> str:
    return " ".join(finding.what for finding in damaged.client.diagnose() if finding.subject == "records")


# -- listings of any size -------------------------------------------------------------------------


def test_more_dead_letters_are_listed_than_a_script_can_return_at_once(damaged: DamagedQueue) -> None:
    """Lua returns at most some 8,000 values of a call."""
    ids = [f"job-{number}" for number in range(8_200)]
    damaged.publish(*ids)
    damaged.kill_all()

    assert [letter.id for letter in damaged.client.dead_letters("jobs", limit=10_000)] == ids
    assert [letter.id for letter in damaged.client.dead_letters("jobs", limit=8_100, offset=50)] == ids[
        50:8_150
    ]


def test_large_dead_letters_are_listed_a_few_at_a_time(
    damaged: DamagedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the server nor the client needs the memory for all of their bodies at once."""
    ids = [f"job-{number}" for number in range(12)]
    damaged.publish(*ids, body=b"x" * 1024 * 1024)
    damaged.kill_all()
    redis, pages = damaged.client._redis, list[int]()
    run = redis.run

    def spy(script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        answer = run(script, keys, arguments)
        pages.append(len(answer[1]))
        return answer

    monkeypatch.setattr(redis, "run", spy)

    assert [letter.id for letter in damaged.client.dead_letters("jobs")] == ids
    assert pages == [5, 5, 2]
