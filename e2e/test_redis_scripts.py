"""Each part of the script that settles and takes, by itself, on a real Redis."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import pytest
from redis import Redis

from brokers.redis_server import Address
from mindtrace.jobs.adapters.redis.keys import QueueKeys
from mindtrace.jobs.adapters.redis.requests import KEEP_ANSWER_MS
from mindtrace.jobs.adapters.redis.scripts import FIND_ANSWER, compose

NOW = 1_000_000
MINE, OTHERS = "me:1", "someone:1"


def record(
    *, attempt: int = 1, crashes: int = 0, number: int = 1, place: float = 0.0, token: str = ""
) -> bytes:
    return struct.pack(">BIIId", 0, attempt, crashes, number, place) + token.encode()


@dataclass(frozen=True)
class Part:
    """A part in a script of its own, in a namespace of its own."""

    admin: Redis
    keys: QueueKeys

    def run(self, names: str, source: str, *arguments: object) -> Any:
        """Run ``source``, where ``KEYS`` are keys of these names."""
        script = compose(f"#!lua\n-- KEYS  {names}\n{source}\n")
        keys = self.keys.of(script, "me")
        return self.admin.execute_command("EVAL", script.text, len(keys), *keys, *arguments)

    def lease(self, id_: str, *, token: str = MINE, ends: int = NOW + 1, **about: Any) -> None:
        """Put a job in flight."""
        self.admin.hset(self.keys.body, id_, "{}")
        self.admin.hset(self.keys.state, id_, record(token=token, **about))
        self.admin.zadd(self.keys.run, {id_: ends})

    def ready(self) -> list[bytes]:
        return self.admin.lrange(self.keys.ready, 0, -1)

    def state(self, id_: str) -> bytes | None:
        return self.admin.hget(self.keys.state, id_)


@pytest.fixture
def part(redis_address: Address) -> Iterator[Part]:
    namespace = f"parts-{token_hex(4)}"
    with redis_address.admin() as admin:
        yield Part(admin, QueueKeys(namespace, "jobs"))
        if left := list(admin.scan_iter(f"mtj:{{{namespace}/*", count=1000)):
            admin.unlink(*left)


# -- sweep ----------------------------------------------------------------------------------------


def sweep(part: Part, *, stand: int | str = "", kind: str = "fifo") -> None:
    part.run(
        "meta state ready run delay",
        "local kind, now, stand = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])\n"
        "local has_asked, dead_until = false, nil\n--- @include sweep",
        *(kind, NOW, stand),
    )


def test_sweep_makes_ready_what_is_due_and_leaves_the_rest(part: Part) -> None:
    part.admin.zadd(part.keys.delay, {"due": NOW - 1, "now": NOW, "later": NOW + 1})
    sweep(part)

    assert part.ready() == [b"due", b"now"]
    assert part.admin.zrange(part.keys.delay, 0, -1) == [b"later"]


def test_sweep_takes_back_what_was_leased_too_long_and_counts_the_crash(part: Part) -> None:
    """It goes to the head, since it stood before those that are ready (ORD-4, RTY-3)."""
    part.admin.rpush(part.keys.ready, "waiting")
    part.lease("over", ends=NOW, crashes=1, number=3)
    part.lease("held", ends=NOW + 1)
    sweep(part)

    assert part.ready() == [b"over", b"waiting"]
    assert part.state("over") == record(crashes=2, number=3)
    assert part.state("held") == record(token=MINE)
    assert part.admin.zrange(part.keys.run, 0, -1) == [b"held"]


def test_sweep_ends_what_is_asked_to_be_cancelled_under_its_own_token(part: Part) -> None:
    """A request of an earlier lease, or of an earlier job of that id, is none (CAN-3)."""
    part.lease("cancelled", ends=NOW)
    part.lease("other", ends=NOW)
    part.admin.hset(part.keys.asked, mapping={"cancelled": f"5000|{MINE}", "other": "5000|earlier:1"})
    part.run(
        "meta body state history ready run delay result expiry ended asked rwake",
        "local kind, now, stand, waited_until = 'fifo', tonumber(ARGV[1]), nil, nil\n"
        "local has_asked, dead_until = true, nil\n--- @include sweep",
        NOW,
    )

    assert part.ready() == [b"other"]
    assert (part.state("cancelled"), part.admin.hget(part.keys.body, "cancelled")) == (None, None)
    assert part.admin.zrange(part.keys.expiry, 0, -1, withscores=True) == [(b"cancelled", NOW + 5000)]
    assert part.admin.hlen(part.keys.asked) == 0


@pytest.mark.parametrize(("stand", "taken_back"), [(NOW + 1, []), (NOW, [b"over"])])
def test_sweep_ends_no_lease_while_all_of_them_stand(part: Part, stand: int, taken_back: list[bytes]) -> None:
    """After an outage, for the time that ``protect_leases.lua`` set (LSE-3)."""
    part.lease("over", ends=NOW - 100)
    sweep(part, stand=stand)

    assert part.ready() == taken_back


def test_sweep_puts_jobs_of_a_sorted_queue_back_where_they_stood(part: Part) -> None:
    part.lease("second", ends=NOW, place=2.0)
    part.lease("first", ends=NOW, place=1.0)
    part.admin.zadd(part.keys.delay, {"due": NOW})
    part.admin.hset(part.keys.meta, "place", 2)
    sweep(part, kind="priority")

    assert part.admin.zrange(part.keys.ready, 0, -1) == [b"first", b"second", b"due"]


def test_sweep_takes_a_bounded_number(part: Part) -> None:
    part.admin.zadd(part.keys.delay, {f"due-{number}": NOW - 1 for number in range(700)})
    part.admin.zadd(part.keys.run, {f"over-{number}": NOW - 1 for number in range(700)})
    sweep(part)

    assert part.admin.zcard(part.keys.delay) == part.admin.zcard(part.keys.run) == 200
    assert part.admin.llen(part.keys.ready) == 1000


def test_sweep_leaves_a_damaged_record_to_whoever_takes_the_job(part: Part) -> None:
    part.lease("damaged", ends=NOW)
    part.admin.hset(part.keys.state, "damaged", "x")
    sweep(part)

    assert part.ready() == [b"damaged"]
    assert part.state("damaged") == b"x"


# -- settle ---------------------------------------------------------------------------------------


def settle(
    part: Part, runs: dict[str, str], *others: object, waited_until: int | str = ""
) -> tuple[str, bool, bool]:
    """Settle runs of plain acks, by token, and others; return the outcomes, must_wake and must_plan."""
    told = [argument for run in runs.items() for argument in run]
    outcomes, must_wake, must_plan = part.run(
        "meta body state ready run delay dead letter history result expiry ended rwake",
        "local kind, now, waited_until = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])\n"
        "local has_asked, is_behind = false, false\n--- @include settle\n"
        "return { table.concat(outcomes), must_wake and 1 or 0, must_plan and 1 or 0 }",
        *("fifo", NOW, waited_until, "-", "-", len(runs), *told, *others),
    )
    return outcomes.decode(), bool(must_wake), bool(must_plan)


def test_settle_acks_what_is_held_and_nothing_else(part: Part) -> None:
    """Whatever is held by another lease, or by none, stays as it is (LSE-4)."""
    for id_ in ("first", "again", "others"):
        part.lease(id_, token=OTHERS if id_ == "others" else MINE, number=2 if id_ == "again" else 1)

    assert settle(part, {MINE: "first,again,others,unknown"}) == ("1100", False, False)
    assert part.admin.hkeys(part.keys.body) == [b"others"]
    assert part.admin.hkeys(part.keys.state) == [b"others"]
    assert part.admin.zrange(part.keys.run, 0, -1) == [b"others"]
    assert part.admin.lrange(part.keys.ended, 0, -1) == [b"again", b"first"]


def test_settle_keeps_a_result_for_its_time(part: Part) -> None:
    part.lease("job")
    part.admin.hset(part.keys.result, "old", b"x")
    part.admin.zadd(part.keys.expiry, {"old": NOW})

    assert settle(part, {}, "a", "job", MINE, b"{}", 5000) == ("1", False, False)
    assert part.admin.hgetall(part.keys.result) == {b"job": struct.pack(">d", NOW + 5000) + b"{}"}
    assert part.admin.zscore(part.keys.expiry, "job") == NOW + 5000
    assert not part.admin.hexists(part.keys.body, "job")


@pytest.mark.parametrize(("first_due", "must_plan"), [(None, True), (NOW + 60, True), (NOW + 40, False)])
def test_settle_delays_a_retry_and_says_if_it_is_the_next_that_is_due(
    part: Part, first_due: int | None, must_plan: bool
) -> None:
    if first_due is not None:
        part.admin.zadd(part.keys.delay, {"earlier": first_due})
    part.lease("job")

    assert settle(part, {}, "r", "job", MINE, "no luck", 50) == ("1", False, must_plan)
    assert part.admin.zscore(part.keys.delay, "job") == NOW + 50
    assert part.admin.hget(part.keys.history, "job") == b'[[1,"no luck"]]'
    assert part.state("job") == record(attempt=2)


def test_settle_makes_a_retry_without_a_delay_ready_behind_the_others(part: Part) -> None:
    part.admin.rpush(part.keys.ready, "waiting")
    part.lease("job")

    assert settle(part, {}, "r", "job", MINE, "no luck", 0) == ("1", True, False)
    assert part.ready() == [b"waiting", b"job"]


def test_settle_keeps_the_last_ten_errors(part: Part) -> None:
    for attempt in range(1, 13):
        part.lease("job", attempt=attempt)
        settle(part, {}, "r", "job", MINE, f"error {attempt}", 50)

    history = part.admin.hget(part.keys.history, "job")
    assert history is not None
    assert history.startswith(b'[[3,"error 3"]')
    assert history.endswith(b'[12,"error 12"]]')


def test_settle_buries_in_the_order_of_deaths(part: Part) -> None:
    for id_ in ("one", "two"):
        part.lease(id_)
        assert settle(part, {}, "drejected", id_, MINE, "no", 0) == ("1", False, False)

    assert part.admin.zrange(part.keys.dead, 0, -1, withscores=True) == [(b"one", 1.0), (b"two", 2.0)]
    assert part.admin.hget(part.keys.letter, "one") == b'["rejected","no",1000000]'
    assert part.state("one") == record()


def test_settle_drops_what_has_no_body_in_place_of_burying_it(part: Part) -> None:
    part.lease("ghost")
    part.admin.hdel(part.keys.body, "ghost")

    assert settle(part, {}, "dmalformed", "ghost", MINE, "it has no body", 0) == ("1", False, False)
    assert not part.admin.exists(part.keys.dead, part.keys.state, part.keys.letter)


def test_settle_puts_released_jobs_back_to_the_head(part: Part) -> None:
    part.admin.rpush(part.keys.ready, "waiting")
    part.lease("one")
    part.lease("two")

    assert settle(part, {}, *("l", "one", MINE, "", 0), *("l", "two", MINE, "", 0)) == ("11", True, False)
    assert part.ready() == [b"one", b"two", b"waiting"]


@pytest.mark.parametrize(("first_due", "must_plan"), [(None, True), (NOW + 60, True), (NOW + 40, False)])
def test_settle_delays_a_release_and_spends_no_attempt(
    part: Part, first_due: int | None, must_plan: bool
) -> None:
    """It waits as a retry does, and keeps what it had spent before (SET-4)."""
    if first_due is not None:
        part.admin.zadd(part.keys.delay, {"earlier": first_due})
    for id_ in ("later", "now"):
        part.lease(id_, attempt=3, crashes=1, number=4)

    assert settle(part, {}, *("l", "later", MINE, "", 50), *("l", "now", MINE, "", 0)) == (
        "11",
        True,
        must_plan,
    )
    assert part.admin.zscore(part.keys.delay, "later") == NOW + 50
    assert part.ready() == [b"now"]
    assert part.state("later") == part.state("now") == record(attempt=3, crashes=1, number=4)
    assert not part.admin.exists(part.keys.history, part.keys.run)


@pytest.mark.parametrize(("waited_until", "woken"), [("", 0), (NOW, 0), (NOW + 1, 1)])
def test_settle_wakes_those_who_wait_for_results(part: Part, waited_until: int | str, woken: int) -> None:
    part.lease("job")
    settle(part, {MINE: "job"}, waited_until=waited_until)

    assert part.admin.exists(part.keys.rwake) == woken


# -- take -----------------------------------------------------------------------------------------


def take(part: Part, count: int, *, kind: str = "fifo") -> tuple[list[bytes], list[bytes], bool]:
    """Take jobs; return ids, infos and all_first."""
    ids, infos, all_first = part.run(
        "state ready run",
        "local kind, now, take = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])\n"
        "local consumer, request, lease_ms = 'me', '1', 50\n"
        "--- @include take\n"
        "return { ids, infos, all_first and 1 or 0 }",
        *(kind, NOW, count),
    )
    return ids, infos, bool(all_first)


def test_take_leases_from_the_head(part: Part) -> None:
    part.admin.rpush(part.keys.ready, "one", "two", "three")

    assert take(part, 2) == ([b"one", b"two"], [b"", b""], True)
    assert part.ready() == [b"three"]
    assert part.state("one") == record(token=MINE)
    assert part.admin.zrange(part.keys.run, 0, -1, withscores=True) == [
        (b"one", NOW + 50),
        (b"two", NOW + 50),
    ]


def test_take_counts_the_deliveries_of_a_job_that_comes_again(part: Part) -> None:
    part.admin.rpush(part.keys.ready, "job")
    part.admin.hset(part.keys.state, "job", record(attempt=2, number=3, crashes=1))

    assert take(part, 1) == ([b"job"], [b"2:4:1"], False)
    assert part.state("job") == record(attempt=2, number=4, crashes=1, token=MINE)


def test_take_remembers_where_a_job_of_a_sorted_queue_stood(part: Part) -> None:
    part.admin.zadd(part.keys.ready, {"high": 2 * 2**48 + 7, "low": 9 * 2**48 + 3})

    assert take(part, 5, kind="priority") == ([b"high", b"low"], [b"1:1:0", b"1:1:0"], False)
    assert part.state("high") == struct.pack(">BIIId", 7, 1, 0, 1, 7.0) + MINE.encode()


def test_take_tells_what_is_damaged_in_flight_or_there_twice(part: Part) -> None:
    """A damaged job is leased, so that its consumer can bury it; one in flight stays with its own."""
    part.lease("in-flight", token=OTHERS)
    part.admin.rpush(part.keys.ready, "damaged", "in-flight", "twice", "twice")
    part.admin.hset(part.keys.state, "damaged", "x")

    assert take(part, 5) == ([b"damaged", b"in-flight", b"twice", b"twice"], [b"!", b"=", b"", b"="], False)
    assert part.state("damaged") == record(token=MINE)
    assert part.state("in-flight") == record(token=OTHERS)


# -- replay ---------------------------------------------------------------------------------------


def replay(part: Part, request: int) -> Any:
    return part.run(
        "body run delay wake last",
        "local request, now, stand = ARGV[1], tonumber(ARGV[2]), nil\n--- @include replay\nreturn 'new'",
        *(request, NOW),
    )


def test_replay_answers_the_last_request_again_and_refuses_those_before(part: Part) -> None:
    part.admin.hset(part.keys.body, "job", "{}")
    part.admin.set(part.keys.last("me"), "2|10|1|job|1:2:0")

    assert replay(part, 2) == [NOW, -1, b"", b"10", [b"job"], [b"{}"], [b"1:2:0"]]
    assert replay(part, 3) == b"new"
    with pytest.raises(Exception, match="STALE"):
        replay(part, 1)


def test_replay_says_when_something_becomes_ready_where_nothing_was_taken(part: Part) -> None:
    part.admin.zadd(part.keys.delay, {"due": NOW + 7})
    part.admin.zadd(part.keys.run, {"held": NOW + 5})
    part.admin.set(part.keys.last("me"), "1||0||")

    assert replay(part, 1) == [NOW, NOW + 5, b"0-0", b"", [], [], []]


def test_replay_gives_no_job_whose_id_it_can_not_tell_from_others(part: Part) -> None:
    part.admin.set(part.keys.last("me"), "1||1|a,b|")

    assert replay(part, 1)[4] == []


# -- answers --------------------------------------------------------------------------------------


def find_answer(part: Part) -> bytes | None:
    keys = part.keys.of(FIND_ANSWER, "me")
    arguments = ("1", str(KEEP_ANSWER_MS), "jobs")
    answer: bytes | None = part.admin.execute_command("EVAL", FIND_ANSWER.text, len(keys), *keys, *arguments)
    return answer


@pytest.mark.parametrize(
    ("kept", "answer"), [(None, None), ("1|aad", b"aad"), ("2|a", None), ("11|a", None), ("1|", b"")]
)
def test_an_answer_is_found_by_its_number(part: Part, kept: str | None, answer: bytes | None) -> None:
    if kept is not None:
        part.admin.set(part.keys.last("me"), kept, px=KEEP_ANSWER_MS)

    assert find_answer(part) == answer


def test_an_answer_of_before_the_queue_was_deleted_is_not_found(part: Part) -> None:
    part.admin.set(part.keys.last("me"), "1|a", px=KEEP_ANSWER_MS - 60_000)  # a minute ago
    seconds, _ = part.admin.time()

    part.admin.zadd(part.keys.deleted, {"jobs": (seconds - 120) * 1_000_000, "other": seconds * 1_000_000})
    assert find_answer(part) == b"a"
    part.admin.zadd(part.keys.deleted, {"jobs": (seconds - 30) * 1_000_000})
    assert find_answer(part) is None
