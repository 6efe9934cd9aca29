"""An outage of Redis costs no settlement of a finished job, no crash of a healthy one, and patience once.

The server restarts, is killed, falls silent, is cut off, or forgets. That its leases run out meanwhile is
written into it: to wait for it they would have to be short, and a busy machine may take longer to bring two
consumers back. Nothing goes wrong if a sleep takes longer than it says.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest

from background import Background
from brokers.fixtures import StartRedis
from brokers.proxy import Disruption, Proxy
from brokers.redis_server import PrivateRedis
from conditions import LIMIT_S, eventually
from job_audit import ExecutionRecord, JobAudit
from mindtrace.jobs import (
    Consumer,
    ConsumerBackend,
    Job,
    Orchestrator,
    PublishStatus,
    QueueCounts,
    job_from_schema,
)
from mindtrace.jobs.adapters.redis import RedisClient
from mindtrace.jobs.adapters.redis.scripts import PUBLISH, SETTLE_AND_TAKE
from mindtrace.jobs.contract.lateness import Lateness
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import BackendUnavailable, QueueNotFound
from mindtrace.jobs.ports import Ack, Delivery, Message, Release, SettleOutcome

from .recording_worker import SCHEMA, Numbered
from .worker_process import WorkerProcess

HELD_S = 600.0
"""A lease that stands until it is ended by hand."""
LEASE_S = 10.0
"""One of which a part must pass: long enough for a busy machine to bring two consumers back within it."""
THIRD_S = LEASE_S / 3 + 0.5
"""A client that couldn't reach the server for so long takes it for an outage."""
KEEPS_ALL = {"appendonly": "yes", "appendfsync": "always"}
EMPTY = QueueCounts(0, 0, 0, 0)

Connect = Callable[..., RedisClient]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def server(private_redis: StartRedis) -> PrivateRedis:
    return private_redis(**KEEPS_ALL)


@pytest.fixture
def connect(server: PrivateRedis, stack: ExitStack) -> Connect:
    """Connect a client that has declared the queue, and gives up soon where nobody answers.

    It waits long for a server that is silent, as one on a busy machine may be, unless it is made with less.
    """

    def connect(**options: Any) -> RedisClient:
        retry_timeout_s = options.get("retry_timeout_s", 1.0)
        client = stack.enter_context(
            server.client(**({"retry_timeout_s": LIMIT_S, "sweep_s": 0.5} | options))
        )
        with patience(client, LIMIT_S):
            client.declare(Queue("jobs"))
        client._redis.retry_timeout_s = retry_timeout_s
        return client

    return connect


@contextmanager
def patience(client: RedisClient, seconds: float) -> Iterator[None]:
    """Change the retry timeout of a client for the duration of the block."""
    redis = client._redis
    before, redis.retry_timeout_s = redis.retry_timeout_s, seconds
    yield
    redis.retry_timeout_s = before


def publish(client: RedisClient, *ids: str) -> list[PublishStatus]:
    return [outcome.status for outcome in client.publish("jobs", [Message(id_, b"{}") for id_ in ids])]


def receive(consumer: ConsumerBackend, count: int) -> list[Delivery]:
    deliveries = consumer.receive(count, LIMIT_S)
    assert len(deliveries) == count
    return deliveries


def settle(consumer: ConsumerBackend, *receipts: str) -> list[SettleOutcome]:
    return consumer.settle([Ack(receipt) for receipt in receipts]).outcomes


def end_leases(server: PrivateRedis, client: RedisClient) -> None:
    """Make all leases of the queue end so much earlier that they are over."""
    with server.admin() as admin:
        run = client._queue("jobs").keys.run
        leases = admin.zrange(run, "-inf", "(+inf", byscore=True)  # and not the ballast, which never ends
        admin.zadd(run, dict.fromkeys(leases, 1))


# -- leases ---------------------------------------------------------------------------------------

stopped = pytest.mark.parametrize("end", [PrivateRedis.stop, PrivateRedis.kill], ids=["stopped", "killed"])


@stopped
def test_leases_that_ran_out_while_the_server_was_away_stand_until_their_workers_can_be_back(
    server: PrivateRedis, connect: Connect, end: Callable[[PrivateRedis], None]
) -> None:
    """Whoever is back first takes nobody's job, and counts it as in flight (LSE-3, RTY-3)."""
    holder, first = (connect().open_consumer("jobs", lease_s=HELD_S) for _ in range(2))
    client = connect()
    publish(client, "finished", "running")
    finished, running = receive(holder, 2)

    end(server)
    server.start()
    end_leases(server, client)

    assert first.receive(2, 0.0) == []
    assert client.counts("jobs") == QueueCounts(0, 0, 2, 0)
    assert settle(holder, finished.receipt) == [SettleOutcome.OK]
    assert holder.extend([running.receipt]) == [SettleOutcome.OK]
    assert settle(holder, running.receipt) == [SettleOutcome.OK]
    assert client.counts("jobs") == EMPTY


def test_short_leases_of_one_consumer_put_no_end_to_the_long_ones_of_another(
    server: PrivateRedis, connect: Connect
) -> None:
    """The consumer with the shorter leases comes back last (LSE-3, RTY-3)."""
    patient, hasty = connect(), connect()
    holder = patient.open_consumer("jobs", lease_s=HELD_S)
    other = hasty.open_consumer("jobs", lease_s=0.2)
    publish(patient, "job")
    (held,) = receive(holder, 1)

    server.restart()
    end_leases(server, patient)
    for client in (patient, hasty):
        with patience(client, LIMIT_S):
            assert client.counts("jobs") == QueueCounts(0, 0, 1, 0)
    time.sleep(0.4)

    assert other.receive(1, 0.0) == []
    assert settle(holder, held.receipt) == [SettleOutcome.OK]


def test_an_outage_ends_no_lease_in_a_queue_that_was_declared_again(
    server: PrivateRedis, connect: Connect
) -> None:
    """Though the server has forgotten whom the queue's workers met last (LSE-3, RTY-3)."""
    holder, first = (connect().open_consumer("jobs", lease_s=HELD_S) for _ in range(2))
    client = connect()
    with server.admin() as admin:
        admin.flushall()
    publish(client, "job")
    (held,) = receive(holder, 1)
    server.restart()
    end_leases(server, client)

    assert first.receive(1, 0.0) == []
    assert settle(holder, held.receipt) == [SettleOutcome.OK]


@stopped
def test_a_worker_that_died_with_the_server_is_found_dead_a_lease_after_that_is_back(
    server: PrivateRedis, connect: Connect, end: Callable[[PrivateRedis], None]
) -> None:
    """Its job is charged with the crash: it may have taken both along (LSE-1, RTY-3)."""
    heir, dead = (connect().open_consumer("jobs", lease_s=1.0) for _ in range(2))
    publish(connect(), "job")
    receive(dead, 1)

    end(server)
    server.start()

    (delivery,) = receive(heir, 1)
    assert (delivery.id, delivery.crashes) == ("job", 1)


def test_a_job_that_kills_its_worker_ends_dead_though_the_server_restarts_each_time(
    server: PrivateRedis, connect: Connect
) -> None:
    """A restart puts off when the crash is counted, and takes none back (RTY-3)."""
    client = connect()
    publish(client, "job")
    for crashes in range(3):
        doomed = connect().open_consumer("jobs", lease_s=0.2)
        (delivery,) = receive(doomed, 1)
        assert delivery.crashes == crashes
        server.restart()

    (delivery,) = receive(client.open_consumer("jobs", lease_s=0.2), 1)
    assert delivery.crashes == 3


def test_a_lease_that_runs_out_while_the_server_serves_is_a_crash_at_once(connect: Connect) -> None:
    """Without an outage nothing is put off (LSE-1)."""
    client = connect()
    publish(client, "job")
    receive(connect().open_consumer("jobs", lease_s=0.2), 1)

    (delivery,) = receive(connect().open_consumer("jobs", lease_s=600.0), 1)
    assert delivery.crashes == 1


def test_a_network_that_cuts_all_workers_off_charges_no_job_with_a_crash(
    server: PrivateRedis, stack: ExitStack
) -> None:
    """The server saw no outage: the first worker that is back tells it (RTY-3)."""
    proxy = stack.enter_context(Proxy(server.address.host, server.address.port))
    clients = [
        stack.enter_context(RedisClient("127.0.0.1", proxy.port, retry_timeout_s=0.2)) for _ in range(2)
    ]
    for client in clients:
        client._redis.retry_timeout_s = LIMIT_S  # but each try is given up after half a second
    holder, first = clients
    holder.declare(Queue("jobs"))
    publish(holder, "job")
    consumer, other = (client.open_consumer("jobs", lease_s=LEASE_S) for client in clients)
    (held,) = receive(consumer, 1)

    proxy.disrupt_next(b"", Disruption.SILENCE, times=10_000)
    for client, cut_off in ((holder, consumer), (first, other)):
        with patience(client, 0.2), pytest.raises(BackendUnavailable):
            cut_off.receive(1, 0.0)
    time.sleep(THIRD_S)
    end_leases(server, holder)
    proxy.stop_disrupting()

    assert other.receive(1, 0.0) == []
    assert settle(consumer, held.receipt) == [SettleOutcome.OK]


def test_a_server_that_takes_no_writes_for_longer_than_a_lease_charges_no_job_with_a_crash(
    server: PrivateRedis, stack: ExitStack
) -> None:
    """It answers what reads all the while, so that no call shows when it began (LSE-3, RTY-3)."""
    clients = [stack.enter_context(server.client(retry_timeout_s=LIMIT_S)) for _ in range(2)]
    holder, first = clients
    holder.declare(Queue("jobs"))
    publish(holder, "job")
    consumer, other = (client.open_consumer("jobs", lease_s=LEASE_S) for client in clients)
    (held,) = receive(consumer, 1)

    with server.admin() as admin:
        admin.config_set("min-replicas-to-write", 1)
        ends = time.monotonic() + THIRD_S
        while time.monotonic() < ends:
            for client, refused in ((holder, consumer), (first, other)):
                with patience(client, 0.1), pytest.raises(BackendUnavailable):
                    refused.receive(1, 0.0)
                client.queues()  # reads, and meets no lease
        admin.config_set("min-replicas-to-write", 0)
    end_leases(server, holder)

    assert other.receive(1, 0.0) == []
    assert settle(consumer, held.receipt) == [SettleOutcome.OK]


def test_a_worker_that_alone_is_cut_off_is_taken_for_dead(server: PrivateRedis, connect: Connect) -> None:
    """It can't be told from one that died: its job runs elsewhere, charged with a crash (LSE-1, LSE-4)."""
    client = connect()
    publish(client, "job")
    cut_off, other = (client.open_consumer("jobs", lease_s=HELD_S) for _ in range(2))
    (held,) = receive(cut_off, 1)
    end_leases(server, client)

    (again,) = receive(other, 1)
    assert again.crashes == 1
    assert settle(cut_off, held.receipt) == [SettleOutcome.LOST]
    assert settle(other, again.receipt) == [SettleOutcome.OK]


@pytest.mark.long
def test_workers_ride_five_outages_out_and_run_each_job_once(
    server: PrivateRedis, connect: Connect, stack: ExitStack, tmp_path: Any
) -> None:
    """Whatever they have in flight, waiting, running or finished (CON-1, I3, I4)."""
    record, audit = ExecutionRecord(tmp_path / "record"), JobAudit()
    with server.client() as client:
        orchestrator = Orchestrator(client)
        orchestrator.register(SCHEMA)
        options = {"lease_s": 60.0, "prefetch": 5, "job_s": 0.05}
        workers = [WorkerProcess(server.url, record, **options) for _ in range(2)]
        for worker in workers:
            stack.callback(worker.kill)
        for outage in range(5):
            goal = len(record) + 10
            jobs = [job_from_schema(SCHEMA, Numbered(number=number)) for number in range(40)]
            orchestrator.publish_batch(SCHEMA.name, jobs)
            audit.confirmed |= {job.id for job in jobs}
            eventually(partial(_has, record, goal), "the workers work")
            (server.kill if outage % 2 else server.stop)()
            time.sleep(0.5)
            server.start()
        eventually(lambda: client.counts(SCHEMA.name) == EMPTY, "every job is done")

        assert audit.check(client, SCHEMA.name, record).ran_again == 0
        assert sum(worker.end()["lost"] for worker in workers) == 0


def _has(record: ExecutionRecord, lines: int) -> bool:
    return len(record) >= lines


# -- requests whose answer never came -------------------------------------------------------------


@pytest.fixture
def line(server: PrivateRedis, stack: ExitStack) -> "tuple[Proxy, RedisClient]":
    """A proxy, and a client behind it that has declared the queue and made its connections."""
    proxy = stack.enter_context(Proxy(server.address.host, server.address.port))
    client = stack.enter_context(RedisClient("127.0.0.1", proxy.port, retry_timeout_s=0.5, sweep_s=0.5))
    client._redis.retry_timeout_s = LIMIT_S  # but each try is given up after half a second
    client.declare(Queue("jobs"))
    with server.admin() as admin:
        admin.script_load(SETTLE_AND_TAKE.text)
        admin.script_load(PUBLISH.text)
    return proxy, client


Line = tuple[Proxy, RedisClient]
never_answered = pytest.mark.parametrize("how", [Disruption.CUT, Disruption.SILENCE, Disruption.HOLD])


@never_answered
def test_a_settlement_that_was_never_answered_is_answered_truly_when_it_is_asked_again(
    line: Line, connect: Connect, how: Disruption
) -> None:
    """It counts once, whether it arrived at first or not, or arrives late (SET-1, CON-1)."""
    proxy, client = line
    publish(client, "a", "b")
    consumer = client.open_consumer("jobs")
    first, second = receive(consumer, 2)
    proxy.disrupt_next(SETTLE_AND_TAKE.sha.encode(), how, times=100)
    with patience(client, 0.5), pytest.raises(BackendUnavailable):
        settle(consumer, first.receipt)
    proxy.stop_disrupting()

    again = consumer.settle([Release(first.receipt), Ack(second.receipt)]).outcomes
    assert again == [SettleOutcome.ALREADY, SettleOutcome.OK]
    proxy.release()
    assert connect().open_consumer("jobs").receive(1, 0.2) == []
    assert connect().counts("jobs") == EMPTY


@never_answered
def test_what_came_with_a_settlement_that_was_never_answered_goes_back(line: Line, how: Disruption) -> None:
    """No crash is charged, though nobody was told of the jobs (SET-4, RTY-3)."""
    proxy, client = line
    publish(client, "a", "b", "c")
    consumer = client.open_consumer("jobs")
    (first,) = receive(consumer, 1)
    proxy.disrupt_next(SETTLE_AND_TAKE.sha.encode(), how, times=100)
    with patience(client, 0.5), pytest.raises(BackendUnavailable):
        consumer.settle([Ack(first.receipt)], take=2)
    proxy.stop_disrupting()

    answer = consumer.settle([Ack(first.receipt)], take=2)
    assert answer.outcomes == [SettleOutcome.ALREADY]
    assert [(delivery.id, delivery.crashes) for delivery in answer.deliveries] == [("b", 0), ("c", 0)]
    assert client.counts("jobs") == QueueCounts(0, 0, 2, 0)


@never_answered
@pytest.mark.parametrize(
    "request_", [SETTLE_AND_TAKE.sha.encode(), b"XREAD"], ids=["at once", "after a wait"]
)
def test_jobs_that_were_taken_without_an_answer_are_taken_again(
    line: Line, server: PrivateRedis, how: Disruption, request_: bytes
) -> None:
    """They don't stay in flight until a lease ends (LSE-1, RTY-3)."""
    proxy, client = line
    consumer = client.open_consumer("jobs")
    assert consumer.receive(2, 0.0) == []  # so that the next call waits at the server
    proxy.disrupt_next(request_, how)
    proxy.disrupt_next(SETTLE_AND_TAKE.sha.encode(), how, times=100)
    with patience(client, 0.5), Background() as thread, server.client() as other:
        received = thread.submit(consumer.receive, 2, LIMIT_S)
        eventually(lambda: proxy.disrupted >= 1, "the consumer waits, or asks")
        publish(other, "a", "b")
        assert isinstance(received.exception(LIMIT_S), BackendUnavailable)
    proxy.stop_disrupting()

    deliveries = receive(consumer, 2)
    assert [(delivery.id, delivery.crashes) for delivery in deliveries] == [("a", 0), ("b", 0)]
    assert settle(consumer, *[delivery.receipt for delivery in deliveries]) == [SettleOutcome.OK] * 2
    proxy.release()
    with server.client() as other:
        assert other.counts("jobs") == EMPTY


def test_what_may_be_settled_is_not_said_to_be_lost_when_its_lease_is_extended(line: Line) -> None:
    """The heartbeat must not alarm anybody of a job that was settled (LSE-4)."""
    proxy, client = line
    publish(client, "a")
    consumer = client.open_consumer("jobs")
    (held,) = receive(consumer, 1)
    proxy.disrupt_next(SETTLE_AND_TAKE.sha.encode(), Disruption.CUT, times=100)
    with patience(client, 0.5):
        with pytest.raises(BackendUnavailable):
            settle(consumer, held.receipt)
        with pytest.raises(BackendUnavailable):
            consumer.extend([held.receipt])
    proxy.stop_disrupting()

    assert consumer.extend([held.receipt]) == [SettleOutcome.ALREADY]
    assert settle(consumer, held.receipt) == [SettleOutcome.ALREADY]


def test_a_settlement_that_was_never_sent_is_sent_when_it_is_asked_again(
    server: PrivateRedis, connect: Connect
) -> None:
    """With what was done since (SET-1, CON-1)."""
    client = connect()
    publish(client, "a", "b")
    consumer = client.open_consumer("jobs")
    first, second = receive(consumer, 2)
    server.stop()
    for receipts in ([first.receipt], [first.receipt, second.receipt]):
        with pytest.raises(BackendUnavailable):
            settle(consumer, *receipts)
    server.start()

    assert settle(consumer, first.receipt, second.receipt) == [SettleOutcome.OK] * 2
    assert client.counts("jobs") == EMPTY


@never_answered
def test_close_settles_what_was_settled_without_an_answer_and_releases_the_rest(
    line: Line, how: Disruption
) -> None:
    """What was done stays done (SET-1, SET-4)."""
    proxy, client = line
    publish(client, "a", "b")
    consumer = client.open_consumer("jobs")
    first, _ = receive(consumer, 2)
    proxy.disrupt_next(SETTLE_AND_TAKE.sha.encode(), how, times=100)
    with patience(client, 0.5), pytest.raises(BackendUnavailable):
        settle(consumer, first.receipt)
    proxy.stop_disrupting()
    consumer.close()

    (left,) = receive(client.open_consumer("jobs"), 1)
    assert (left.id, left.crashes) == ("b", 0)
    assert client.counts("jobs") == QueueCounts(0, 0, 1, 0)


def test_a_queue_that_was_deleted_before_a_settlement_is_asked_again_makes_it_lost(
    line: Line, server: PrivateRedis
) -> None:
    """Nothing of the deleted queue counts (ADM-3)."""
    proxy, client = line
    publish(client, "a")
    consumer = client.open_consumer("jobs")
    (held,) = receive(consumer, 1)
    proxy.disrupt_next(SETTLE_AND_TAKE.sha.encode(), Disruption.HOLD, times=100)
    with patience(client, 0.5), pytest.raises(BackendUnavailable):
        settle(consumer, held.receipt)
    proxy.stop_disrupting()
    with server.client() as other:
        other.delete("jobs")

    assert settle(consumer, held.receipt) == [SettleOutcome.LOST]
    with pytest.raises(QueueNotFound):
        consumer.receive(1, 0.0)


# -- what callers wait ----------------------------------------------------------------------------

RETRY_TIMEOUT_S = 2.0
CALLERS = 8
WAITED_S = RETRY_TIMEOUT_S + 4.0
"""Far less than it takes if one waits behind the other, where threads run as soon as they want to."""

away = pytest.mark.parametrize("away", [PrivateRedis.kill, PrivateRedis.pause], ids=["killed", "silent"])


def timed(call: Callable[[], object]) -> tuple[float, Exception | None]:
    """Make a call, and say how long it took and what it raised."""
    began = time.monotonic()
    try:
        call()
    except Exception as error:
        return time.monotonic() - began, error
    return time.monotonic() - began, None


@away
def test_publishers_do_not_wait_for_one_another_while_the_server_is_away(
    server: PrivateRedis, connect: Connect, away: Callable[[PrivateRedis], None]
) -> None:
    """Each is answered after its own patience (CON-1)."""
    client = connect(retry_timeout_s=RETRY_TIMEOUT_S)
    publish(client, "before")
    away(server)
    with Lateness() as lateness, Background() as threads:
        tries = [threads.submit(timed, partial(publish, client, f"job-{n}")) for n in range(CALLERS)]
        took = [each.result() for each in tries]
    server.resume()

    assert max(seconds for seconds, _ in took) < WAITED_S + lateness.worst_s
    unsent = [error for _, error in took if error is not None]
    assert all(isinstance(error, BackendUnavailable) and error.__cause__ is not None for error in unsent)
    assert len(unsent) >= CALLERS - 1, "the first may have been sent: it is answered UNKNOWN"


def test_a_publish_that_was_never_sent_raises_and_may_be_repeated(
    server: PrivateRedis, connect: Connect
) -> None:
    """``UNKNOWN`` is for what may be in the queue (PUB-4)."""
    client = connect()
    publish(client, "before")
    server.stop()
    with pytest.raises(BackendUnavailable, match="Connection refused") as raised:
        publish(client, "a")
    assert raised.value.__cause__ is not None
    server.start()

    assert publish(client, "a") == [PublishStatus.ACCEPTED]


def test_of_an_outage_after_a_part_of_a_batch_the_rest_is_known_not_to_be_sent(
    server: PrivateRedis, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was confirmed before is told, too (PUB-4)."""
    client = connect()
    run = client._redis.run

    def run_and_end(script: Any, *arguments: Any, **options: Any) -> Any:
        answer = run(script, *arguments, **options)
        if script is PUBLISH:
            server.stop()
        return answer

    monkeypatch.setattr(client._redis, "run", run_and_end)
    outcomes = client.publish("jobs", [Message(f"job-{number}", b"{}") for number in range(1200)])

    statuses = [outcome.status for outcome in outcomes]
    assert statuses == [PublishStatus.ACCEPTED] * 500 + [PublishStatus.REJECTED] * 700
    assert isinstance(outcomes[-1].error, BackendUnavailable)


def test_what_an_earlier_publish_left_open_stays_unknown_during_an_outage(line: Line) -> None:
    """Only of those ids it can't be said that they aren't in the queue (PUB-4, PUB-5)."""
    proxy, client = line
    proxy.disrupt_next(PUBLISH.sha.encode(), Disruption.CUT, times=100)
    with patience(client, 0.5):
        assert publish(client, "a") == [PublishStatus.UNKNOWN]
        proxy.disrupt_next(b"", Disruption.CUT, times=1000)

        assert publish(client, "a", "b") == [PublishStatus.UNKNOWN, PublishStatus.REJECTED]
        with pytest.raises(BackendUnavailable):
            publish(client, "b")
    proxy.stop_disrupting()
    assert publish(client, "c") == [PublishStatus.ACCEPTED]  # finds out what became of the first
    proxy.disrupt_next(b"", Disruption.CUT, times=1000)
    with patience(client, 0.5):
        assert publish(client, "a", "b") == [PublishStatus.UNKNOWN, PublishStatus.REJECTED]
    proxy.stop_disrupting()
    assert publish(client, "a", "b") == [PublishStatus.DUPLICATE, PublishStatus.ACCEPTED]


@away
@pytest.mark.parametrize("holding", [False, True], ids=["idle", "with jobs in flight"])
def test_closing_a_client_takes_one_patience_however_many_consumers_it_has(
    server: PrivateRedis, connect: Connect, away: Callable[[PrivateRedis], None], holding: bool
) -> None:
    """A program can end while its broker is away (CON-2)."""
    client = connect(retry_timeout_s=RETRY_TIMEOUT_S)
    publish(client, *[f"job-{number}" for number in range(CALLERS)])
    consumers = [client.open_consumer("jobs") for _ in range(CALLERS)]
    for consumer in consumers if holding else []:
        receive(consumer, 1)
    away(server)

    with Lateness() as lateness:
        took_s, _ = timed(client.close)
    server.resume()
    assert took_s < WAITED_S + lateness.worst_s


@away
def test_a_worker_stops_and_closes_while_the_server_is_away(
    server: PrivateRedis, away: Callable[[PrivateRedis], None]
) -> None:
    """It keeps what it can't settle; no job is lost, each comes back when its lease ends (CON-1, CON-2)."""

    class Doomed(Consumer):
        def run(self, job: Job[Any]) -> None:
            if self.stats.attempted == 1:  # the first, which runs
                away(server)
                self.stop()

    with server.client(retry_timeout_s=RETRY_TIMEOUT_S) as client:
        orchestrator = Orchestrator(client)
        orchestrator.register(SCHEMA)
        published = orchestrator.publish_batch(SCHEMA.name, [Numbered(number=number) for number in range(5)])
        ids = [handle.id for handle in published]
        worker = Doomed(SCHEMA.name)
        worker.connect(orchestrator, prefetch=5, lease_s=LEASE_S)

        consumed_s, error = timed(worker.consume)
        closed_s, _ = timed(worker.close)
        server.resume()
        if not server.answers():
            server.start()
        eventually(lambda: client.counts(SCHEMA.name).in_flight == 0, "the leases end")
        done = len(client.results(SCHEMA.name, ids))
        waiting = client.counts(SCHEMA.name).waiting

    assert waiting + done == 5
    assert done <= 1  # a server that was silent may have got the ack, and carries it out when it goes on
    assert error is None
    assert consumed_s < 10 * RETRY_TIMEOUT_S
    assert closed_s < 10 * RETRY_TIMEOUT_S
    assert worker._connection is None


def test_interrupting_a_consumer_does_not_wait_for_a_server_that_is_away(
    server: PrivateRedis, connect: Connect
) -> None:
    """A signal handler calls it (CON-1)."""
    consumer = connect(retry_timeout_s=60.0).open_consumer("jobs")
    server.kill()

    took_s, _ = timed(consumer.interrupt)
    server.start()
    assert took_s < 30.0


# -- a server that forgets ------------------------------------------------------------------------


def flush(server: PrivateRedis) -> None:
    with server.admin() as admin:
        admin.flushall()


def restart_empty(server: PrivateRedis) -> None:
    server.kill()
    for file in server.folder.rglob("*.aof"):
        file.unlink()
    for file in server.folder.rglob("*.manifest"):
        file.unlink()
    server.start()


forgets = pytest.mark.parametrize("forget", [flush, restart_empty])


@forgets
def test_publishers_and_waiting_workers_go_on_in_a_server_that_lost_its_memory(
    server: PrivateRedis, connect: Connect, forget: Callable[[PrivateRedis], None]
) -> None:
    """Their queues are declared again, empty; what was in them is lost (CON-1)."""
    publisher, worker = connect(), connect()
    consumer = worker.open_consumer("jobs")
    publish(publisher, "lost")
    (held,) = receive(consumer, 1)
    publish(publisher, "lost as well")
    forget(server)

    assert publish(publisher, "new") == [PublishStatus.ACCEPTED]
    assert settle(consumer, held.receipt) == [SettleOutcome.LOST]
    (delivery,) = receive(consumer, 1)
    assert (delivery.id, delivery.crashes) == ("new", 0)
    assert settle(consumer, delivery.receipt) == [SettleOutcome.OK]
    assert publisher.counts("jobs") == EMPTY


@forgets
def test_a_worker_that_waits_while_the_server_loses_its_memory_is_not_deaf(
    server: PrivateRedis, connect: Connect, forget: Callable[[PrivateRedis], None]
) -> None:
    """It hears of what is published into the new queue (RCV-2, CON-1)."""
    publisher, worker = connect(), connect(sweep_s=60.0)
    consumer = worker.open_consumer("jobs")
    with Background() as thread, server.admin() as admin:
        received = thread.submit(consumer.receive, 1, 60.0)
        eventually(lambda: admin.info("clients")["blocked_clients"] == 1, "the consumer waits")
        forget(server)
        publish(publisher, "new")
        (delivery,) = received.result(LIMIT_S)
    assert delivery.id == "new"


@forgets
def test_a_queue_that_nobody_of_a_client_declared_is_not_made_for_it(
    server: PrivateRedis, connect: Connect, forget: Callable[[PrivateRedis], None], stack: ExitStack
) -> None:
    """Only who declared a queue knows its kind (PUB-3)."""
    connect()
    stranger = stack.enter_context(server.client())
    assert stranger.counts("jobs") == EMPTY
    forget(server)

    with pytest.raises(QueueNotFound):
        stranger.counts("jobs")
    with server.admin() as admin:
        assert admin.keys("*") == []


def test_a_queue_that_was_deleted_stays_deleted(server: PrivateRedis, connect: Connect) -> None:
    """Also for a client that had declared it, and also over a restart (ADM-3)."""
    ours, theirs = connect(), connect()
    consumer = ours.open_consumer("jobs")
    theirs.delete("jobs")

    for _ in range(2):
        with pytest.raises(QueueNotFound):
            publish(ours, "a")
        with pytest.raises(QueueNotFound):
            consumer.receive(1, 0.0)
        server.restart()


def test_a_queue_that_was_deleted_after_the_server_lost_its_memory_stays_deleted(
    server: PrivateRedis, connect: Connect
) -> None:
    """Also for a client that had declared it before, and didn't notice (ADM-3)."""
    ours, theirs = connect(), connect()
    flush(server)
    theirs.declare(Queue("jobs"))
    theirs.delete("jobs")

    with pytest.raises(QueueNotFound):
        publish(ours, "a")
