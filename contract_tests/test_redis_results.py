"""The port for results that a broker can't keep, on a real Redis."""

import os
import secrets
import threading
import time
from collections.abc import Iterator

import pytest
from redis import Redis

from background import Background
from brokers.fixtures import StartRedis
from brokers.redis_server import Address
from conditions import LIMIT_S, eventually
from mindtrace.jobs import RedisResultStore
from mindtrace.jobs.domain.errors import AccessDenied, BackendError, BackendUnavailable, Closed
from mindtrace.jobs.ports import EndedJob, JobResult, ResultStatus

QUEUE = "default/squares"
DONE = JobResult(ResultStatus.DONE, b'{"square":4}')
SECRET = "hunter2"


@pytest.fixture
def namespace() -> str:
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
def store(redis_address: Address, namespace: str) -> Iterator[RedisResultStore]:
    with redis_address.results(namespace, sweep_s=0.5, retry_timeout_s=30.0) as store:
        yield store


@pytest.fixture
def admin(redis_address: Address, namespace: str) -> Iterator[Redis]:
    with redis_address.admin() as admin:
        yield admin
        if left := keys_of(admin, namespace):
            admin.unlink(*left)


def keys_of(admin: Redis, namespace: str) -> list[bytes]:
    return list(admin.scan_iter(f"mtj:{{{namespace}/*", count=1000))


def until_waiting(admin: Redis, store: RedisResultStore, count: int = 1) -> None:
    """Wait until so many calls of ``store`` are blocked in the server."""

    def blocked() -> int:
        clients = [client for client in admin.client_list() if client["name"] == store._client_name]
        return sum("b" in client["flags"] for client in clients)

    eventually(lambda: blocked() == count, f"{count} calls wait")


@pytest.mark.parametrize(
    "result",
    [
        DONE,
        JobResult(ResultStatus.DONE),
        JobResult(ResultStatus.DONE, b""),
        JobResult(ResultStatus.DONE, bytes(range(256))),
        JobResult(ResultStatus.FAILED, error="no good: é … 👍"),
        JobResult(ResultStatus.FAILED, error=""),
    ],
    ids=str,
)
def test_what_is_put_is_got(store: RedisResultStore, admin: Redis, result: JobResult) -> None:
    """To the byte, any number of times, and by its own id in its own queue only (RES-1)."""
    store.put(QUEUE, [EndedJob("job", result, 60.0)])

    assert [store.get(QUEUE, "job") for _ in range(3)] == [result] * 3
    assert store.get(QUEUE, "another") is None
    assert store.get("other/squares", "job") is None


def test_the_last_end_of_a_job_counts(store: RedisResultStore, admin: Redis) -> None:
    """A job that ran twice answers with what it gave back last, and for the time that this has."""
    failed = JobResult(ResultStatus.FAILED, error="no good")
    store.put(QUEUE, [EndedJob("job", failed, 0.05)])
    store.put(QUEUE, [EndedJob("job", DONE, 60.0)])
    time.sleep(0.1)

    assert store.get(QUEUE, "job") == DONE


def test_a_result_is_kept_for_its_time_and_leaves_no_key(
    store: RedisResultStore, admin: Redis, namespace: str
) -> None:
    """By the server's clock; once all are over, whoever does nothing more has left nothing."""
    store.put("other/squares", [EndedJob("long", DONE, 600.0)])
    began = time.monotonic()
    store.put(QUEUE, [EndedJob("short", DONE, 1.0), EndedJob("none", DONE, 0.0)])
    assert store.get(QUEUE, "short") == DONE or time.monotonic() - began >= 1.0
    assert store.get(QUEUE, "none") is None
    time.sleep(1.1)

    assert store.get(QUEUE, "short") is None
    assert store.get("other/squares", "long") == DONE
    (wake,) = (key for key in keys_of(admin, namespace) if b"other" not in key)
    assert wake.endswith(b"kept-wake")
    assert 0 < admin.pttl(wake) <= 600_000


def test_each_write_removes_a_bounded_number_of_those_whose_time_is_over(
    store: RedisResultStore, admin: Redis, namespace: str
) -> None:
    """500 at a time, so that a queue in use doesn't grow and no write takes long."""
    kept = f"mtj:{{{namespace}/{QUEUE}}}:kept"
    last = EndedJob("last", DONE, 600.0)
    ids = [f"job-{number}" for number in range(1200)]
    store.put(QUEUE, [last, *(EndedJob(id_, DONE, 600.0) for id_ in ids)])
    admin.zadd(f"{kept}-until", dict.fromkeys(ids, 1))  # as if their time was over
    sizes = [admin.hlen(kept)]
    for _ in range(3):
        store.put(QUEUE, [last])
        sizes.append(admin.hlen(kept))

    assert sizes == [1201, 701, 201, 1]
    assert admin.zcard(f"{kept}-until") == 1


def test_a_large_batch_is_kept_and_forgotten_whole(
    store: RedisResultStore, admin: Redis, namespace: str
) -> None:
    """However many requests it takes, by number or by size."""
    body = b"x" * 100_000
    ids = [f"job-{number}" for number in range(1201)]
    large = [f"large-{number}" for number in range(90)]
    ended = [EndedJob(id_, DONE, 60.0) for id_ in ids]
    store.put(QUEUE, [*ended, *(EndedJob(id_, JobResult(ResultStatus.DONE, body), 60.0) for id_ in large)])
    kept = f"mtj:{{{namespace}/{QUEUE}}}:kept"
    assert admin.hlen(kept) == len(ids) + len(large)

    store.forget(QUEUE, [*ids, "never-known"])
    assert admin.hlen(kept) == len(large)
    assert store.get(QUEUE, ids[-1]) is None
    assert store.get(QUEUE, large[-1]) == JobResult(ResultStatus.DONE, body)
    store.forget(QUEUE, [])
    assert admin.hlen(kept) == len(large)

    store.forget(QUEUE)
    assert keys_of(admin, namespace) == []


def test_waiters_are_woken(
    store: RedisResultStore, redis_address: Address, namespace: str, admin: Redis
) -> None:
    """Any process may put the result: it wakes them long before they would ask by themselves."""
    with (
        redis_address.results(namespace, sweep_s=3600.0) as waiting,
        Background() as pool,
    ):
        answers = [pool.submit(waiting.get, QUEUE, id_, timeout_s=3600.0) for id_ in ("a", "b", "a")]
        until_waiting(admin, waiting, 3)
        store.put(QUEUE, [EndedJob("a", DONE, 60.0)])
        assert answers[0].result(LIMIT_S) == DONE
        store.put(QUEUE, [EndedJob("b", JobResult(ResultStatus.DONE), 60.0)])
        assert answers[1].result(LIMIT_S) == JobResult(ResultStatus.DONE)
        assert answers[2].result(LIMIT_S) == DONE


def test_many_are_got_at_once(store: RedisResultStore, admin: Redis) -> None:
    """In answers of bounded size, however many and however large they are."""
    large = JobResult(ResultStatus.DONE, b"x" * 1_000_000)
    failed = JobResult(ResultStatus.FAILED, error="no good")
    results = {f"job-{n}": (DONE, failed, JobResult(ResultStatus.DONE))[n % 3] for n in range(1200)}
    results |= {f"large-{n}": large for n in range(9)}
    store.put(QUEUE, [EndedJob(id_, result, 60.0) for id_, result in results.items()])

    assert store.get_many(QUEUE, [*results, "never"]) == results
    assert store.get_many("other/squares", list(results)) == {}


def test_it_tells_which_jobs_ended(store: RedisResultStore, admin: Redis, namespace: str) -> None:
    """And says that it doesn't know where what it would read is gone."""

    def put(*ids: str) -> None:
        store.put(QUEUE, [EndedJob(id_, DONE, 60.0) for id_ in ids])

    with store.ended_jobs(QUEUE) as ended:
        assert ended.wait(0.01) == []
        put("first")
        assert ended.wait(LIMIT_S) is None  # nothing was there to begin with
        put("a", "b")
        put("c")
        assert ended.wait(LIMIT_S) == ["a", "b", "c"]
        assert ended.wait(0.01) == []
        put("d")
        admin.xtrim(f"mtj:{{{namespace}/{QUEUE}}}:kept-wake", maxlen=0, approximate=False)
        put("e")
        assert ended.wait(LIMIT_S) is None
        put("f")
        assert ended.wait(LIMIT_S) == ["f"]


def test_a_wait_ends(store: RedisResultStore) -> None:
    """At its timeout, and not before, over several sweeps."""
    began = time.monotonic()
    assert store.get(QUEUE, "never", timeout_s=1.2) is None
    assert time.monotonic() - began >= 1.2


def test_a_cut_wait_goes_on(store: RedisResultStore, admin: Redis) -> None:
    """Whoever waits when the connection breaks is answered all the same (CON-1)."""
    with Background() as pool:
        answer = pool.submit(store.get, QUEUE, "job", timeout_s=3600.0)
        until_waiting(admin, store)
        for client in admin.client_list():
            if client["name"] == store._client_name:
                admin.client_kill_filter(_id=client["id"])
        store.put(QUEUE, [EndedJob("job", DONE, 60.0)])
        assert answer.result(LIMIT_S) == DONE


def test_closing_ends_waits_and_is_final(store: RedisResultStore, admin: Redis) -> None:
    """Calls that wait, and later calls, raise Closed; closing again does nothing (CON-2)."""
    with Background() as pool:
        answer = pool.submit(store.get, QUEUE, "job", timeout_s=3600.0)
        until_waiting(admin, store)
        store.close()
        store.close()
        with pytest.raises(Closed, match="this RedisResultStore is closed"):
            answer.result(LIMIT_S)
    for call in (
        lambda: store.get(QUEUE, "job"),
        lambda: store.put(QUEUE, [EndedJob("job", DONE, 60.0)]),
        lambda: store.forget(QUEUE),
    ):
        with pytest.raises(Closed):
            call()


def test_a_forked_process_has_connections_of_its_own(store: RedisResultStore, admin: Redis) -> None:
    """It puts, gets and closes, and its parent goes on as before."""
    store.put(QUEUE, [EndedJob("parent", DONE, 60.0)])
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            store.put(QUEUE, [EndedJob("child", DONE, 60.0)])
            status = 0 if store.get(QUEUE, "parent") == DONE else 2
            store.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (store.get(QUEUE, "child"), store.get(QUEUE, "parent")) == (DONE, DONE)


def test_a_server_that_is_away_is_told_within_patience() -> None:
    """Typed, with the address and how to start one."""
    with RedisResultStore("127.0.0.1", 1, retry_timeout_s=0.5) as store:
        for call in (
            lambda: store.get(QUEUE, "job", timeout_s=3600.0),
            lambda: store.put(QUEUE, [EndedJob("job", DONE, 60.0)]),
            lambda: store.forget(QUEUE, ["job"]),
        ):
            with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:.*redis-server"):
                call()


def test_a_wrong_password_is_denied_and_shown_nowhere(
    private_redis: StartRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """At once (SEC-3)."""
    server = private_redis(requirepass="the-right-one")
    with (
        RedisResultStore("127.0.0.1", server.address.port, password=SECRET) as store,
        pytest.raises(AccessDenied) as denied,
    ):
        store.put(QUEUE, [EndedJob("job", DONE, 60.0)])
    assert SECRET not in str(denied.value) + repr(store) + repr(vars(store)) + caplog.text


def test_a_full_server_refuses_results_and_still_serves_them(private_redis: StartRedis) -> None:
    """In words; reading and forgetting go on."""
    server = private_redis()
    with server.address.results() as store, server.admin() as admin:
        store.put(QUEUE, [EndedJob("job", DONE, 60.0)])
        admin.config_set("maxmemory", 1)
        with pytest.raises(BackendError, match="memory"):
            store.put(QUEUE, [EndedJob("more", DONE, 60.0)])
        assert store.get(QUEUE, "job") == DONE
        store.forget(QUEUE, ["job"])
        assert store.get(QUEUE, "job") is None


def test_closing_leaves_no_thread_and_no_connection(
    redis_address: Address, namespace: str, admin: Redis
) -> None:
    """However often stores come and go (CON-2)."""
    before = set(threading.enumerate())
    for _ in range(5):
        with redis_address.results(namespace) as store:
            store.put(QUEUE, [EndedJob("job", DONE, 60.0)])
            store.get(QUEUE, "other", timeout_s=0.05)
            name = store._client_name
    assert set(threading.enumerate()) <= before
    eventually(
        lambda: all(client["name"] != name for client in admin.client_list()), "its connections are gone"
    )
