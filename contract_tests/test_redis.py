"""The contract, on a real Redis."""

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from hiredis import pack_command
from redis import OutOfMemoryError, ResponseError
from redis import exceptions as driver

from background import Background
from brokers.fixtures import StartRedis
from brokers.redis_server import Address
from mindtrace.jobs import (
    ConsumerBackend,
    OrchestratorBackend,
    Progress,
    Queue,
    RedisCoordinationStore,
    Verdict,
)
from mindtrace.jobs.adapters.redis import RedisClient, scripts
from mindtrace.jobs.adapters.redis.requests import KEEP_ANSWER_MS, NumberedRequests
from mindtrace.jobs.adapters.redis.transport import channel
from mindtrace.jobs.adapters.redis.transport.commands import Command
from mindtrace.jobs.adapters.redis.transport.connections import ConnectionBroke
from mindtrace.jobs.contract import Harness, contract_suite, run_contract
from mindtrace.jobs.ports import ABSENT, EndedJob, Guard, JobResult, Message, Place, ResultStatus

from .harnesses import NEVER_S

# The state machine waits for real leases: a minute on a machine that is idle.
pytestmark = pytest.mark.timeout(1800)


ALL_SCRIPTS = [value for value in vars(scripts).values() if isinstance(value, scripts.Script)]
NEED_MEMORY = {script.sha for script in ALL_SCRIPTS if "allow-oom" not in script.text}
GIVE_UP_S = 0.3
"""For how long a client tries that is cut off."""
READING = {"TIME", *(script.sha for script in ALL_SCRIPTS if "no-writes" in script.text)}


class RedisHarness(Harness):
    lease_s = 0.3
    wake_s = 0.25  # less than the half second after which a waiter asks by itself
    secrets = None  # the tests' server has no password; least privilege below proves SEC-3
    address: ClassVar[Address]

    def __init__(self) -> None:
        self.admin = self.address.admin()

    def make(self, namespace: str) -> OrchestratorBackend:
        return self.address.client(namespace, sweep_s=0.5)

    def make_without_polling(self, namespace: str) -> OrchestratorBackend:
        return self.address.client(namespace, sweep_s=NEVER_S)

    def crash(self, consumer: ConsumerBackend) -> None:
        """Nothing to do: a consumer that is never heard of again is dead."""

    def sever(self, backend: OrchestratorBackend) -> None:
        for client in self.admin.client_list():
            if client["name"] == backend._client_name:
                with suppress(ResponseError):  # it is gone already
                    self.admin.client_kill_filter(_id=client["id"])

    def cut_reply(self, backend: OrchestratorBackend) -> bool:
        commands = backend._redis._commands
        execute = commands.execute

        def execute_and_break(*words: Command) -> list[object]:  # a call that is tried again comes here, too
            answers = execute(*words)
            is_reading = not READING.isdisjoint(words[0][:2]) or isinstance(answers[0], Exception)
            if commands.execute is execute_and_break and not is_reading:
                commands.execute = execute
                raise ConnectionBroke("the reply was lost")
            return answers

        commands.execute = execute_and_break
        return True

    def count_stored(self, backend: OrchestratorBackend) -> int:
        """Count keys and what they hold, but for entries of streams, which a server drops when it likes."""
        lengths = {"hash": self.admin.hlen, "zset": self.admin.zcard, "list": self.admin.llen}
        keys = self.admin.scan_iter(f"mtj:{{{backend._namespace}/*", count=1000)
        return sum(1 + lengths.get(self.admin.type(key), lambda _: 0)(key) for key in keys)

    def cut_request(self, backend: OrchestratorBackend) -> bool:
        commands = backend._redis._commands
        execute = commands.execute

        def execute_or_break(*words: Command) -> list[object]:
            if commands.execute is execute_or_break and READING.isdisjoint(words[0][:2]):
                commands.execute = execute
                raise ConnectionBroke("the request was lost")
            return execute(*words)

        commands.execute = execute_or_break
        return True

    @contextmanager
    def cut_off(self, backend: OrchestratorBackend) -> Iterator[None]:
        def nobody(*_words: Command) -> list[object]:
            raise driver.ConnectionError("nobody listens")

        redis = backend._redis
        retry_timeout_s, redis.retry_timeout_s = redis.retry_timeout_s, GIVE_UP_S
        execute, redis._commands.execute = redis._commands.execute, nobody
        try:
            yield
        finally:
            redis._commands.execute, redis.retry_timeout_s = execute, retry_timeout_s

    @contextmanager
    def refuse(self, backend: OrchestratorBackend) -> Iterator[None]:
        """Answer what needs more memory as a server that has none left; it doesn't hear of that."""
        commands = backend._redis._commands
        execute = commands.execute

        def execute_or_refuse(*words: Command) -> list[object]:
            if not NEED_MEMORY.isdisjoint(words[0][:2]):
                full = "command not allowed when used memory > 'maxmemory'."
                return [OutOfMemoryError(full) for _ in words]
            return execute(*words)

        commands.execute = execute_or_refuse
        try:
            yield
        finally:
            commands.execute = execute

    def destroy(self, namespace: str) -> None:
        keys = list(self.admin.scan_iter(f"mtj:{{{namespace}/*", count=1000))
        if keys:
            self.admin.unlink(*keys)

    def close(self) -> None:
        self.admin.close()


@pytest.fixture(scope="module", autouse=True)
def find_redis(redis_address: Address) -> None:
    RedisHarness.address = redis_address


@pytest.fixture(autouse=True)
def refuse_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hiredis makes text of a number, and a signal that comes meanwhile ends the process."""

    def pack(words: Command) -> bytes:
        assert not any(isinstance(word, int) for word in words), words[0]
        return pack_command(words)  # type: ignore[arg-type]

    monkeypatch.setattr(channel, "pack_command", pack)


globals().update(contract_suite(RedisHarness))


def test_queues_are_listed_that_the_server_finds_in_several_steps() -> None:
    """A step covers a thousand keys, and others may keep more on the same server."""
    harness = RedisHarness()
    namespace = f"many-{secrets.token_hex(6)}"
    keys = {f"mtj:{{{namespace}/*}}:{number}".encode(): "" for number in range(3000)}
    harness.admin.mset(keys)
    try:
        with harness.make(namespace) as client:
            client.declare(Queue("looks"))
            assert client.queues() == [Queue("looks")]
    finally:
        harness.destroy(namespace)
        harness.close()


# -- least privilege ------------------------------------------------------------------------------

GUIDE = Path(__file__).parents[1] / "docs" / "redis.md"
PASSWORD = "a-long-password"  # as in the guide
CLAUSES = {
    *("PUB-1", "PUB-3", "PUB-5", "ORD-2", "ORD-3", "LSE-3", "LSE-4", "SET-1", "SET-2", "SET-4", "DLY-2"),
    *("DLQ-1", "DLQ-2", "DLQ-3", "DLQ-5", "CNT-1", "CNT-2", "ADM-1", "ADM-2", "ADM-3", "RES-1"),
    *("CON-1", "CON-2", "SEC-3"),
    *("CRD-1", "CRD-2", "CRD-3", "CRD-4", "CRD-5", "CRD-6", "CRD-7", "CRD-8"),
}
"""What takes every script through every one of its commands."""


def _look_at(client: RedisClient) -> None:
    """What the command line does besides the contract: lists queues, shows progress, diagnoses."""
    client.declare(Queue("looks"))
    client.publish_guarded("looks", Message("1", b"{}"), Guard("look", ABSENT, b""))
    with client.open_consumer("looks") as consumer:
        (delivery,) = consumer.receive(1, 0)
        consumer.report(delivery.receipt, Progress(1, 2))
        assert client.progress("looks") == {"1": Progress(1, 2)}
    assert client.queues() == [Queue("looks")]
    _look_up_an_answer(client)
    wrong = [finding for finding in client.diagnose() if finding.verdict is Verdict.WRONG]
    assert not wrong


def _look_up_an_answer(client: RedisClient) -> None:
    """What a publisher does before its next publish if an answer never came."""
    requests = NumberedRequests[None](client._queue("looks"), scripts.PUBLISH, "publisher")
    request = requests.make([str(KEEP_ANSWER_MS), "late", "", b"{}"], None)
    assert requests.send(request) == requests.look_up(request.number) == b"a"
    requests.end()


def _coordinate(store: RedisCoordinationStore) -> None:
    """What schedules, unique jobs and limits do with a store."""
    places = [Place("gpu", 1, "me"), Place("gpu", 1, "other")]
    version = store.put("key", b"value", expected=ABSENT, ttl_s=60.0)
    assert store.get(["key"]) == {"key": (b"value", version)} == store.scan("k")
    assert store.take_places(places, ttl_s=0.001) == [True, False]
    store.leave_places(places)
    assert store.reserve("api", 1, interval_s=store.now()).waits_s == [0.0]
    assert store.delete("key", expected=version)


def test_a_wake_up_for_a_job_that_ended_with_its_lease_is_kept_for_ten_minutes() -> None:
    """Who waits for a result is woken by a stream, which mustn't outlast the queue's use (CON-2)."""
    namespace = f"wake-{secrets.token_hex(6)}"
    client = RedisHarness.address.client(namespace)
    admin = RedisHarness.address.admin()
    try:
        client.declare(Queue("jobs"))
        client.publish("jobs", [Message("job", b"{}")])
        client.open_consumer("jobs").receive(1, 10.0)
        client.cancel("jobs", ["job"])
        found = admin.scan_iter(match=f"*{namespace}*", count=10_000)
        keys = {key.decode().rpartition(":")[2]: key for key in found}
        with Background() as pool:
            waits = pool.submit(client.result, "jobs", "job", timeout_s=60.0)
            while not admin.hget(keys["meta"], "rwait"):
                time.sleep(0.01)
            admin.zadd(keys["run"], {"job": 0.0})  # its lease ends
            assert client.open_consumer("jobs").receive(1, 0.0) == []
        assert waits.result() == JobResult(ResultStatus.CANCELLED)
        (wake,) = admin.scan_iter(match=f"*{namespace}*:rwake", count=10_000)
        assert 0 < admin.pttl(wake) <= 600_000
    finally:
        client.close()
        for key in admin.scan_iter(match=f"*{namespace}*", count=10_000):
            admin.delete(key)
        admin.close()


@pytest.mark.long
def test_a_user_with_no_more_than_the_documented_privileges_is_enough(private_redis: StartRedis) -> None:
    (rule,) = re.findall(r"^ACL SETUSER .*$", GUIDE.read_text("utf-8"), re.MULTILINE)
    server = private_redis()

    class LeastPrivilegeHarness(RedisHarness):
        address = replace(server.address, username="mindtrace", password=PASSWORD)
        secrets = (PASSWORD,)

        def __init__(self) -> None:
            self.admin = server.admin()

    with server.admin() as admin:
        admin.execute_command(*rule.split())
        with closing(LeastPrivilegeHarness()) as harness:
            results = list(run_contract(harness, profile="quick", clauses=CLAUSES))
        broken = [f"{result.check}: {result.error}" for result in results if result.broken]
        assert not broken
        with LeastPrivilegeHarness.address.client() as client:
            _look_at(client)

        with LeastPrivilegeHarness.address.results("other") as store:
            with store.ended_jobs("squares") as ended:
                for id_ in ("first", "job"):  # the first may be one of any: nothing was read before
                    store.put("squares", [EndedJob(id_, JobResult(ResultStatus.DONE, b"{}"), 60.0)])
                    told = ended.wait(60.0)
                assert told is None or set(told) == {"job"}
            assert store.get_many("squares", ["job", "another"]).keys() == {"job"}
            assert store.get("squares", "job", timeout_s=0.1) is not None
            store.forget("squares", ["job"])
            assert store.get("squares", "job", timeout_s=0.1) is None
            store.forget("squares")
        with LeastPrivilegeHarness.address.coordination("other") as coordination:
            _coordinate(coordination)

        loaded = admin.script_exists(*(script.sha for script in ALL_SCRIPTS))
        assert all(loaded), "a script was never run, so nobody knows what it needs"
        used = {name.removeprefix("cmdstat_") for name in admin.info("commandstats")}
        granted = {word[1:] for word in rule.split() if word.startswith("+")}
        assert granted <= used, "more is granted than is needed"
