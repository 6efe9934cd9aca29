"""Connections to RabbitMQ that break, processes that fork, messages of others: at the worst moments."""

import gc
import os
import select
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count
from random import Random
from typing import Any

import pika.data
import pytest
from pika import BasicProperties
from pika.frame import Heartbeat

from brokers.private_server import free_port
from brokers.proxy import Proxy, Spoil
from brokers.rabbitmq_server import PrivateRabbitMQ, patience
from mindtrace.jobs import ConsumerBackend, RabbitMQClient, RabbitMQConsumerBackend
from mindtrace.jobs.adapters.rabbitmq import dead_letters
from mindtrace.jobs.adapters.rabbitmq.consumer import credit
from mindtrace.jobs.adapters.rabbitmq.consumer.channel import ConsumerChannel
from mindtrace.jobs.adapters.rabbitmq.message import HEADER
from mindtrace.jobs.adapters.rabbitmq.topology import Names
from mindtrace.jobs.adapters.rabbitmq.transport import connection as connection_module
from mindtrace.jobs.adapters.rabbitmq.transport.connection import Connection
from mindtrace.jobs.domain import Queue, QueueKind
from mindtrace.jobs.domain.errors import BackendUnavailable, BrokerUnsuitable, Closed
from mindtrace.jobs.ports import (
    Ack,
    Dead,
    Delivery,
    Message,
    PublishStatus,
    Release,
    Retry,
    Settlement,
    SettleOutcome,
)

from .workers import eventually

QUEUE = "squares"
ACK = b"\x00\x3c\x00\x50"
"""What a Basic.Ack contains."""
LIMIT_S = 60.0
"""How long a test waits for what must happen; only a failing test waits that long."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRabbitMQ]:
    """One node for all: no test here breaks it."""
    node = PrivateRabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    try:
        yield node.start()
    finally:
        node.kill()


@pytest.fixture
def client(server: PrivateRabbitMQ) -> Iterator[RabbitMQClient]:
    with server.client(f"t{time.monotonic_ns()}", retry_timeout_s=LIMIT_S) as made:
        made.declare(Queue(QUEUE))
        yield made


def cut(connection: Connection) -> None:
    """Break a connection as a network does, and let it be noticed."""
    broken = connection._driver
    if broken is not None:
        broken.drop()
    give_up = time.monotonic() + LIMIT_S
    while broken is not None and connection._driver is broken:
        assert time.monotonic() < give_up, "it doesn't notice that it broke"
        connection.loop.poll()
        time.sleep(0.001)


class CutAt:
    """Cuts a consumer's connection before or after the n-th request over it, until it is lifted."""

    NAMES = ("request", "settle")

    def __init__(self, channel: ConsumerChannel, which: int, *, before: bool) -> None:
        self.cuts = 0
        self._channel = channel
        self._left = which
        for name in self.NAMES:
            setattr(channel, name, self._spoilt(getattr(channel, name), before))

    def lift(self) -> None:
        """Cut no more."""
        for name in self.NAMES:
            delattr(self._channel, name)

    def _spoilt(self, say: Callable[..., Any], before: bool) -> Callable[..., Any]:
        def spoilt(*args: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0 and before:
                self._cut()
            answer = say(*args, **options)
            if self._left == 0 and not before:
                self._cut()
            return answer

        return spoilt

    def _cut(self) -> None:
        cut(self._channel)
        self.cuts += 1


def drained(client: RabbitMQClient, expected: Collection[str], queue: str = QUEUE) -> list[str]:
    """Run what is left, and return its ids: wait until each of ``expected`` came, and look for more."""
    ids: list[str] = []
    with client.open_consumer(queue) as consumer:
        while came := consumer.receive(10, 0.3 if set(expected) <= set(ids) else LIMIT_S):
            ids += [delivery.id for delivery in came]
            assert set(consumer.settle([Ack(one.receipt) for one in came]).outcomes) == {SettleOutcome.OK}
    assert set(expected) <= set(ids), f"{ids} came, and no more"
    return ids


SETTLEMENTS: dict[str, Callable[[str], Settlement]] = {
    "ack": Ack,
    "retry": lambda receipt: Retry(receipt, 0.0, "no"),
    "dead": lambda receipt: Dead(receipt, "rejected", "no"),
    "release": Release,
}


@pytest.mark.parametrize("how", SETTLEMENTS)
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("kind", [QueueKind.FIFO, QueueKind.PRIORITY])
def test_a_settlement_is_ok_only_where_the_broker_heard_it(
    server: PrivateRabbitMQ, kind: QueueKind, before: bool, how: str
) -> None:
    """Whichever request the connection breaks at: OK is final, LOST leaves it open (LSE-4, I1)."""
    with server.client(f"t{time.monotonic_ns()}", retry_timeout_s=LIMIT_S) as client:
        for request in count(1):
            queue = f"{QUEUE}-{request}"
            client.declare(Queue(queue, kind))
            if not settled_at_a_cut(client, queue, how, request, before=before):
                assert request > 1
                return
            client.delete(queue)


def settled_at_a_cut(client: RabbitMQClient, queue: str, how: str, request: int, *, before: bool) -> bool:
    """Settle one of three jobs, cut the connection at that request, and say whether there were so many."""
    client.publish(queue, [Message(f"job-{n}", b"{}") for n in range(3)])
    with client.open_consumer(queue) as consumer:
        assert isinstance(consumer, RabbitMQConsumerBackend)
        (held,) = consumer.receive(1, LIMIT_S)
        saboteur = CutAt(consumer._channel, request, before=before)
        (outcome,) = consumer.settle([SETTLEMENTS[how](held.receipt)], take=1).outcomes
        saboteur.lift()
    dead = Counter(letter.id for letter in client.dead_letters(queue))
    unheard = before and request == 1
    gone = (how == "ack" and not unheard) or held.id in dead
    left = Counter(drained(client, {f"job-{n}" for n in range(3)} - ({held.id} if gone else set()), queue))
    times = left.pop(held.id, 0)
    assert left == {"job-1": 1, "job-2": 1}, "the others were disturbed"
    account = f"{how} at request {request}: {outcome}, delivered {times} times, dead {dead[held.id]} times"
    if outcome is SettleOutcome.OK:
        expected = {"ack": (0, 0), "dead": (0, 1)}.get(how, (1, 0))
        assert (times, dead[held.id]) == expected, account
    else:
        assert outcome is SettleOutcome.LOST
        # The broker may have heard it all the same, or a part of it: the copy, and not the acknowledgement.
        assert times <= (1 if how in ("ack", "dead") else 2), account
        assert not dead or how == "dead", account
    if unheard:
        assert (outcome, times) == (SettleOutcome.LOST, 1), account
    return saboteur.cuts > 0


def test_what_the_broker_never_heard_is_lost_and_comes_again(server: PrivateRabbitMQ) -> None:
    """Though it was written, and a later connection answers (LSE-4, I1)."""
    with (
        Proxy(server.address.host, server.address.port) as proxy,
        RabbitMQClient("127.0.0.1", proxy.port, namespace="unheard", retry_timeout_s=LIMIT_S) as client,
    ):
        client.declare(Queue(QUEUE))
        client.publish(QUEUE, [Message("job", b"{}")])
        with client.open_consumer(QUEUE) as consumer:
            assert isinstance(consumer, RabbitMQConsumerBackend)
            (held,) = consumer.receive(1, LIMIT_S)
            settle = consumer._channel.settle

            def swallowed(*words: Any, **more: Any) -> bool:
                proxy.spoil_next(ACK, Spoil.HOLD)
                answer = settle(*words, **more)
                eventually(lambda: proxy.spoiled, LIMIT_S, "the acknowledgement is held up")
                for connection in proxy._connections:
                    if connection.spoil is Spoil.HOLD:
                        connection.end()
                cut(consumer._channel)
                return answer

            consumer._channel.settle = swallowed  # type: ignore[method-assign]
            assert consumer.settle([Ack(held.receipt)]).outcomes == [SettleOutcome.LOST]
            consumer._channel.settle = settle  # type: ignore[method-assign]
        assert drained(client, {"job"}) == ["job"]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_receiver_whose_connection_breaks_at_any_word_is_still_woken(
    client: RabbitMQClient, before: bool
) -> None:
    """It has reconnected and asked again when the next job comes (RCV-2, CON-1)."""
    for step in (1, 2):
        with client.open_consumer(QUEUE) as consumer, ThreadPoolExecutor(1) as threads:
            assert isinstance(consumer, RabbitMQConsumerBackend)
            channel = consumer._channel
            saboteur = CutAt(channel, step, before=before)
            waiting = threads.submit(consumer.receive, 1, 10 * LIMIT_S)
            eventually(lambda: saboteur.cuts and channel.credit, LIMIT_S, "it has asked again")  # noqa: B023
            client.publish(QUEUE, [Message(f"job-{step}", b"{}")])
            try:
                came = waiting.result(LIMIT_S)
            finally:
                consumer.interrupt()
            assert [one.id for one in came] == [f"job-{step}"]
        assert drained(client, {f"job-{step}"}) == [f"job-{step}"]


def test_an_idle_consumer_asks_for_one_job_and_leaves_the_rest_to_others(client: RabbitMQClient) -> None:
    """The first of a burst is run at once, without a word to the broker about the rest."""
    burst = [Message(f"job-{number}", b"{}") for number in range(5)]
    with (
        client.open_consumer(QUEUE) as idle,
        client.open_consumer(QUEUE) as other,
        ThreadPoolExecutor(1) as threads,
    ):
        waiting = threads.submit(idle.receive, 10, LIMIT_S)
        eventually(lambda: idle._channel.credit == 1, LIMIT_S, "it has asked for one")
        client.publish(QUEUE, burst)
        first = waiting.result()
        rest = receive(other, len(burst) - len(first))

        assert [delivery.id for delivery in (*first, *rest)] == [message.id for message in burst]
        assert len(first) == 1
        assert set(idle.settle([Ack(first[0].receipt)]).outcomes) == {SettleOutcome.OK}
        assert set(other.settle([Ack(each.receipt) for each in rest]).outcomes) == {SettleOutcome.OK}


def test_a_connection_that_breaks_at_once_each_time_is_no_storm(client: RabbitMQClient) -> None:
    """A receiver pauses longer and longer between connections that don't last (CON-1)."""
    with client.open_consumer(QUEUE) as consumer:
        assert isinstance(consumer, RabbitMQConsumerBackend)
        channel, asked = consumer._channel, 0
        request = channel.request

        def doomed(*args: Any) -> Any:
            nonlocal asked
            asked += 1
            answer = request(*args)
            cut(channel)
            return answer

        channel.request = doomed  # type: ignore[method-assign]
        with suppress(BackendUnavailable):
            consumer.receive(1, 2.0)
        assert asked < 40
        channel.request = request  # type: ignore[method-assign]


@pytest.mark.parametrize("ssl", [False, True])
def test_a_client_closes_at_once_while_a_server_is_silent(ssl: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whatever point of the opening; who waits for it is told (CON-2)."""
    monkeypatch.setattr(
        connection_module, "CLOSE_TIMEOUT_S", 10 * LIMIT_S
    )  # what a farewell that nobody answers would take
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = RabbitMQClient(hosts=[silent.getsockname()], ssl=ssl, retry_timeout_s=10 * LIMIT_S)
        told: list[BaseException] = []

        def declare() -> None:
            try:
                client.declare(Queue(QUEUE))
            except Closed as error:
                told.append(error)

        caller = threading.Thread(target=declare)
        caller.start()
        there, _ = silent.accept()
        with there:
            assert there.recv(1)  # so it waits for the answer
            began = time.monotonic()
            client.close()
            assert time.monotonic() - began < LIMIT_S
            caller.join(LIMIT_S)
    assert len(told) == 1


def test_a_client_may_close_at_any_point_of_its_opening(server: PrivateRabbitMQ) -> None:
    """And leaves no socket to the garbage collector, whose warning would be an error here (CON-2)."""

    def declare(client: RabbitMQClient) -> None:
        with suppress(Closed):
            client.declare(Queue(QUEUE))

    for tenths_of_ms in range(100):
        client = server.client()
        caller = threading.Thread(target=declare, args=[client])
        caller.start()
        time.sleep(tenths_of_ms / 10_000)
        client.close()
        caller.join(LIMIT_S)
        assert not caller.is_alive()
    gc.collect()


def test_what_was_said_before_a_connection_ended_hides_no_end(server: PrivateRabbitMQ) -> None:
    """A sign of life, say: what is published next goes by a new connection, and its fate is known (PUB-1)."""
    with (
        Proxy(server.address.host, server.address.port) as proxy,
        RabbitMQClient("127.0.0.1", proxy.port, namespace="ended", retry_timeout_s=LIMIT_S) as client,
    ):
        client.declare(Queue(QUEUE))
        client.publish(QUEUE, [Message("before", b"{}")])
        publisher = client._open().publisher._connection
        publisher._heartbeat.unregister(publisher.loop)  # which might notice it first
        has_ended = select.poll()
        has_ended.register(publisher._driver._transport._sock, select.POLLRDHUP)
        for connection in proxy._connections:
            connection.client.sendall(Heartbeat().marshal())
            connection.end()
        assert has_ended.poll(LIMIT_S * 1000)
        (outcome,) = client.publish(QUEUE, [Message("after", b"{}")])
        assert outcome.status is PublishStatus.ACCEPTED
        publisher._heartbeat.register(publisher.loop)


def test_of_several_servers_the_first_that_answers_is_used(server: PrivateRabbitMQ) -> None:
    """Whatever is wrong with those before it, be it that nobody knows their names."""
    hosts = [("nobody.invalid", 5672), ("127.0.0.1", free_port()), ("127.0.0.1", server.address.port)]
    with RabbitMQClient(hosts=hosts, namespace="several", retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue(QUEUE))
        assert client.counts(QUEUE).waiting == 0


def test_a_signal_handler_may_interrupt_a_receiver(client: RabbitMQClient) -> None:
    """However deep in the I/O the signal strikes, nothing is locked out (SET-4)."""
    consumer = client.open_consumer(QUEUE)
    before = signal.signal(signal.SIGALRM, lambda *_: consumer.interrupt())
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.0007)
    try:
        give_up = time.monotonic() + 1.5
        while time.monotonic() < give_up:
            consumer.receive(1, 5.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    consumer.close()


def test_a_child_leaves_its_parents_consumers_alone(client: RabbitMQClient) -> None:
    """It may close what it inherited: the parent still holds its job (CON-2)."""
    client.publish(QUEUE, [Message("job", b"{}")])
    with client.open_consumer(QUEUE) as consumer:
        (held,) = consumer.receive(1, 5.0)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                consumer.close()
                client.close()
                try:
                    client.publish(QUEUE, [Message("child", b"{}")])
                except Closed:
                    status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert consumer.settle([Ack(held.receipt)]).outcomes == [SettleOutcome.OK]
    assert drained(client, set()) == []


def test_a_publish_after_a_cut_goes_over_a_new_connection(client: RabbitMQClient) -> None:
    """Not over the one that is known to be gone to whoever looks: nothing is UNKNOWN then (PUB-1, CON-1)."""
    for number in range(5):
        publisher = client._open().publisher._connection
        client.publish(QUEUE, [Message(f"before-{number}", b"{}")])
        publisher._driver._transport._sock.shutdown(socket.SHUT_RDWR)
        (outcome,) = client.publish(QUEUE, [Message(f"after-{number}", b"{}")])
        assert outcome.status is PublishStatus.ACCEPTED


def test_a_publish_over_what_pika_gave_up_goes_over_a_new_connection(client: RabbitMQClient) -> None:
    """Where nothing shows on the socket, but the loop has yet to tell (PUB-1, CON-1)."""
    client.publish(QUEUE, [Message("before", b"{}")])
    publisher = client._open().publisher._connection

    publisher.loop.call(lambda: publisher._driver._terminate_stream(RuntimeError("no heartbeat came")))
    (outcome,) = client.publish(QUEUE, [Message("after", b"{}")])

    assert outcome.status is PublishStatus.ACCEPTED


def test_what_was_given_up_before_it_was_begun_never_arrives(client: RabbitMQClient) -> None:
    """Whoever has the loop may be held up longer than others wait, as by the handler of a signal (PUB-4)."""
    client.publish(QUEUE, [Message("before", b"{}")])
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        let_go.wait(LIMIT_S)

    holder = threading.Thread(target=client._open().publisher._connection.loop.call, args=(hold,))
    holder.start()
    assert held.wait(LIMIT_S)
    with patience(client, 0.5):
        (outcome,) = client.publish(QUEUE, [Message("given up", b"{}")])
    let_go.set()
    holder.join()

    assert outcome.status is not PublishStatus.ACCEPTED
    client.publish(QUEUE, [Message("later", b"{}")])
    assert drained(client, {"before", "later"}) == ["before", "later"]


def test_a_message_that_cannot_be_written_costs_no_other(client: RabbitMQClient) -> None:
    """Of its own batch, or of one that is under way; it's the port that lets such a one pass (PUB-4)."""
    good = [Message(f"good-{number}", b"{}") for number in range(3)]
    bad = [Message("x" * 300, b"{}"), Message("ranked", b"{}", priority=1000)]
    client.publish(QUEUE, good[:1])
    connection = client._open().publisher._connection._driver

    outcomes = client.publish(QUEUE, [good[0], bad[0], good[1], bad[1], good[2]])

    told = [outcome.status for outcome in outcomes]
    assert told == [PublishStatus.ACCEPTED, PublishStatus.REJECTED] * 2 + [PublishStatus.ACCEPTED]
    assert "no room" in str(outcomes[1].error)
    assert client._open().publisher._connection._driver is connection
    ids = [message.id for message in good[:1] + good]
    assert drained(client, set(ids)) == ids


# -- messages of others ---------------------------------------------------------------------------


def receive(consumer: ConsumerBackend, count: int) -> list[Any]:
    came: list[Any] = []
    while len(came) < count:
        some = consumer.receive(count - len(came), LIMIT_S)
        assert some, f"{len(came)} came, of {count}"
        came += some
    return came


@pytest.mark.parametrize("kind", [QueueKind.FIFO, QueueKind.PRIORITY])
def test_what_others_put_into_a_queue_is_delivered_and_can_be_settled(
    server: PrivateRabbitMQ, kind: QueueKind
) -> None:
    """Without an id, with any header and any priority; nothing of it stops a consumer (RCV-4)."""
    strange: list[BasicProperties] = [
        BasicProperties(),
        BasicProperties(message_id=b"\xff\xfe", priority=255),
        BasicProperties(message_id=b"\xff" * 255),
        BasicProperties(headers={HEADER: b"not JSON", "x-delivery-count": "many"}),
        BasicProperties(headers={HEADER: "[" * 50_000}),
        BasicProperties(headers={HEADER: b"[Infinity,1,1,[]]", "x-delivery-count": -3}),
        BasicProperties(headers={HEADER: {"a": [1, None, {"b": True}]}}),
        BasicProperties(headers={HEADER: b'[1,1,0,[],"r","e",1e300,77]'}),
        BasicProperties(headers={HEADER: b'[1,1,0,[],"r","e",999999999999999999,0]'}),
    ]
    namespace = f"t{time.monotonic_ns()}"
    names = Names(namespace, QUEUE)
    with server.address.driver() as driver, server.client(namespace, retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue(QUEUE, kind))
        channel = driver.channel()
        channel.confirm_delivery()
        for properties in strange:
            channel.basic_publish("", names.work, b"x", properties)
        with client.open_consumer(QUEUE) as consumer:
            came = receive(consumer, len(strange))
            assert all(type(one.id) is str and one.id and one.attempt == 1 for one in came)
            for settle in (lambda receipt: Retry(receipt, 0.0, "no" * 10**6), Release):
                assert set(consumer.settle([settle(one.receipt) for one in came]).outcomes) == {
                    SettleOutcome.OK
                }
                came = receive(consumer, len(strange))
            consumer.settle([Dead(one.receipt, "rejected", "e" * 10**6) for one in came])
        for properties in strange:
            channel.basic_publish("", names.dead, b"x", properties)
        assert len(client.dead_letters(QUEUE)) == 2 * len(strange)
        assert client.redrive(QUEUE) == 2 * len(strange)
        client.delete(QUEUE)


def test_a_listing_waits_for_what_a_reader_that_died_still_has_in_hand(
    server: PrivateRabbitMQ, client: RabbitMQClient
) -> None:
    """The broker may let go of a reader's lock before it puts back its letters (DLQ-1)."""
    ids = [f"job-{number}" for number in range(5)]
    client.publish(QUEUE, [Message(id_, b"{}") for id_ in ids])
    with client.open_consumer(QUEUE) as consumer:
        consumer.settle([Dead(one.receipt, "rejected", "no") for one in receive(consumer, 5)])
    died = server.address.driver()
    died.channel().basic_consume(Names(client._namespace, QUEUE).dead, lambda *_: None)
    eventually(
        lambda: died.process_data_events(0) or client.counts(QUEUE).dead == 0, LIMIT_S, "it has all of them"
    )

    with (
        server.client(client._namespace, retry_timeout_s=3.0) as hasty,
        pytest.raises(BackendUnavailable, match="somebody else is going through its dead letters"),
    ):
        hasty.discard(QUEUE)
    end = threading.Timer(0.5, died.close)
    end.start()
    listed = [letter.id for letter in client.dead_letters(QUEUE)]
    end.join()
    assert listed == ids


def test_many_dead_letters_are_listed_quickly_and_in_order(
    client: RabbitMQClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than RabbitMQ sends at once by itself, and more than one subscription may have in hand (DLQ-1)."""
    count = 3000
    client.publish(QUEUE, [Message(f"job-{n}", b"x" * 2000) for n in range(count)])
    with client.open_consumer(QUEUE) as consumer:
        for _ in range(6):
            came = receive(consumer, 500)
            consumer.settle([Dead(one.receipt, "rejected", "no") for one in came])
    asked = 0
    ask = dead_letters._ReaderConnection.request

    def counted(*args: Any) -> Any:
        nonlocal asked
        asked += 1
        return ask(*args)

    monkeypatch.setattr(dead_letters._ReaderConnection, "request", counted)
    began = time.process_time()
    listed = [letter.id for letter in client.dead_letters(QUEUE, limit=10**6)]
    took_s = time.process_time() - began
    print(f"{count} dead letters listed in {asked} requests and {took_s:.2f} s of CPU")
    assert asked < count / 10
    assert took_s < 3.0
    assert listed == [f"job-{n}" for n in range(count)]
    monkeypatch.setattr(dead_letters, "_MAX_PREFETCH", 1000)
    assert {letter.id for letter in client.dead_letters(QUEUE, limit=count)} == {
        f"job-{n}" for n in range(count)
    }
    assert client.discard(QUEUE, ["job-2999", "job-0", "job-1500"]) == 3


# -- servers that are none ------------------------------------------------------------------------


class Impostor:
    """Answers a client's first words as a server does, and then goes away."""

    def __init__(self, version: str | None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._version = version
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer, suppress(OSError):
                peer.recv(8)
                peer.sendall(
                    self._frame(10, 10, b"\x00\x09" + self._properties() + _long("PLAIN") + _long("en_US"))
                )
                peer.recv(4096)
                if self._version is None:
                    continue  # as a node that is shut down this moment
                peer.sendall(self._frame(10, 30, struct.pack(">HIH", 0, 131072, 0)))
                peer.recv(4096)
                peer.sendall(self._frame(10, 41, b"\x00"))
                peer.recv(4096)
                peer.sendall(self._frame(10, 51, b""))
                peer.recv(4096)

    def _properties(self) -> bytes:
        pieces: list[bytes] = []
        pika.data.encode_table(pieces, {"product": "RabbitMQ", "version": self._version or "4.0.5"})
        return b"".join(pieces)

    def _frame(self, of: int, method: int, arguments: bytes) -> bytes:
        payload = struct.pack(">HH", of, method) + arguments
        return struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce"


def _long(text: str) -> bytes:
    return struct.pack(">I", len(text)) + text.encode()


def test_a_server_that_goes_away_while_a_connection_is_made_denies_nothing() -> None:
    """It is an outage, which a worker rides out, and no matter of a password (CON-1)."""
    impostor = Impostor(None)
    with (
        RabbitMQClient("127.0.0.1", impostor.port, retry_timeout_s=0.3) as client,
        pytest.raises(BackendUnavailable),
    ):
        client.declare(Queue(QUEUE))
    impostor.close()


def test_a_server_that_is_too_old_is_told_so() -> None:
    """At once, with its version and the one that is needed."""
    impostor = Impostor("3.13.7")
    with (
        RabbitMQClient("127.0.0.1", impostor.port, retry_timeout_s=LIMIT_S) as client,
        pytest.raises(BrokerUnsuitable, match=r"RabbitMQ 3\.13\.7 answers, and 4\.0 or newer is needed"),
    ):
        client.declare(Queue(QUEUE))
    impostor.close()


# -- a queue that is deleted -----------------------------------------------------------------------


def test_what_is_settled_when_its_queue_was_deleted_never_reaches_the_successor(
    client: RabbitMQClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the channel of the deleted queue is slow to close, as over a network (ADM-3)."""
    client.publish(QUEUE, [Message(id_, b"{}") for id_ in ("dead", "again", "back")])
    with client.open_consumer(QUEUE) as consumer:
        assert isinstance(consumer, RabbitMQConsumerBackend)
        dead, again, back = receive_all(consumer, 3)
        monkeypatch.setattr(consumer._channel._channel, "close", lambda: None)
        client.delete(QUEUE)
        client.declare(Queue(QUEUE))
        eventually(
            lambda: consumer.extend([]) or consumer._channel.queue_deleted,
            LIMIT_S,
            "it is told of the deletion",
        )
        settlements = [Dead(dead, "rejected", "no"), Retry(again, 0.0, "no"), Release(back)]
        assert consumer.settle(settlements).outcomes == [SettleOutcome.LOST] * 3
    counts = client.counts(QUEUE)
    assert (counts.waiting, counts.dead) == (0, 0)


def test_what_a_deleted_queue_still_sends_is_nobodys(client: RabbitMQClient) -> None:
    """What was under way when its end was told isn't taken for the successor's (ADM-3)."""
    with client.open_consumer(QUEUE) as consumer:
        assert isinstance(consumer, RabbitMQConsumerBackend)
        channel = consumer._channel
        channel.request(partial(channel.set_credit, 5), LIMIT_S)
        assert channel.credit
        client.publish(QUEUE, [Message("late", b"{}")])
        channel.loop.call(lambda: channel._on_deleted(channel._channel))
        eventually(lambda: channel.queue_deleted, LIMIT_S, "it was told so")
        give_up = time.monotonic() + LIMIT_S
        while channel.is_open:
            assert time.monotonic() < give_up
            channel.loop.poll()
            assert not channel.arrivals
        (receipt,) = receive_all(consumer, 1)  # the queue is still there, as the deletion is made up
        consumer.settle([Ack(receipt)])


def receive_all(consumer: ConsumerBackend, count: int) -> list[str]:
    """The receipts of so many jobs."""
    receipts: list[str] = []
    while len(receipts) < count:
        came = consumer.receive(count - len(receipts), LIMIT_S)
        assert came
        receipts += [delivery.receipt for delivery in came]
    return receipts


# -- jobs that are on their way while others are worked on ----------------------------------------

HAND = 200
"""How many jobs are taken by halves."""


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consumers wait for what the broker is about to send, however long a busy machine takes."""
    for name in ("_GRACE_S", "_LULL_S"):
        monkeypatch.setattr(credit, name, LIMIT_S)


@pytest.fixture
def adaptive(server: PrivateRabbitMQ, unhurried: None) -> Iterator[RabbitMQClient]:
    """A client whose consumers take as many jobs as they ask for."""
    with server.client(f"t{time.monotonic_ns()}", prefetch=None, retry_timeout_s=LIMIT_S) as made:
        made.declare(Queue(QUEUE))
        yield made


def filled(client: RabbitMQClient, count: int, *, body: bytes = b"{}") -> list[str]:
    ids = [f"job-{number:04}" for number in range(count)]
    client.publish(QUEUE, [Message(id_, body) for id_ in ids])
    return ids


def first_half(consumer: ConsumerBackend) -> list[Delivery]:
    """Take and settle a hand, and return the first half of the next, while the other is on its way."""
    hand = consumer.receive(HAND, LIMIT_S)
    half = consumer.settle([Ack(one.receipt) for one in hand], take=HAND).deliveries
    assert (len(hand), len(half)) == (HAND, HAND // 2)
    return half


def test_a_large_hand_comes_by_halves_in_order_to_the_last(adaptive: RabbitMQClient) -> None:
    """And with the consumer there are never more than it asked for (RCV-1, ORD-1)."""
    ids = filled(adaptive, 8 * HAND + 17)
    seen: list[str] = []
    sizes = []
    with adaptive.open_consumer(QUEUE) as consumer:
        came = consumer.receive(HAND, LIMIT_S)
        while came:
            assert len(ids) - len(seen) - adaptive.counts(QUEUE).ready <= HAND
            seen += [one.id for one in came]
            sizes.append(len(came))
            settled = consumer.settle([Ack(one.receipt) for one in came], take=HAND)
            assert set(settled.outcomes) == {SettleOutcome.OK}
            came = settled.deliveries or consumer.receive(HAND, 0.2 if len(seen) >= len(ids) else LIMIT_S)
    assert seen == ids
    assert sizes.count(HAND // 2) >= 4


def test_what_is_on_its_way_is_given_back_to_others(adaptive: RabbitMQClient) -> None:
    """At once, in order, before most of the others, and with nothing counted against it (SET-4)."""
    ids = filled(adaptive, 6 * HAND)
    with adaptive.open_consumer(QUEUE) as busy, adaptive.open_consumer(QUEUE) as other:
        half = first_half(busy)
        eventually(lambda: adaptive.counts(QUEUE).ready == 4 * HAND, LIMIT_S, "the other half is on its way")
        busy.release_ahead()
        came = receive(other, 5 * HAND - len(half))
        order = [one.id for one in came]
        assert sorted(order) == ids[HAND + len(half) :]
        given_back = [id_ for id_ in order[:HAND] if id_ < ids[2 * HAND]]
        assert given_back == ids[HAND + len(half) : 2 * HAND]
        assert {(one.attempt, one.number, one.crashes) for one in came} == {(1, 1, 0)}
        assert set(busy.settle([Ack(one.receipt) for one in half]).outcomes) == {SettleOutcome.OK}
        assert busy.receive(HAND, 0.0) == []


class Delayed:
    """Keeps what the broker has sent from a consumer, as a slow network does, but for the first so many."""

    def __init__(self, channel: ConsumerChannel, first: int) -> None:
        self.kept: list[tuple[Any, ...]] = []
        self._first = first
        self._channel = channel
        self._on_arrival = channel._on_arrival
        channel._on_arrival = self._arrive  # type: ignore[method-assign]

    def _arrive(self, *arrival: Any) -> None:
        if self._first:
            self._first -= 1
            self._on_arrival(*arrival)
        else:
            self.kept.append(arrival)

    def arrive(self) -> None:
        """Let it come now."""

        def arrive() -> None:
            self._first = 10**6
            for arrival in self.kept:
                self._on_arrival(*arrival)

        self._channel.loop.call(arrive)


def test_what_comes_while_others_are_settled_is_not_asked_for_twice(
    adaptive: RabbitMQClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever thread reads it: never more are with the consumer than it asked for (RCV-1, RTY-3)."""
    ids = filled(adaptive, 6 * HAND)
    with adaptive.open_consumer(QUEUE) as consumer:
        assert isinstance(consumer, RabbitMQConsumerBackend)
        channel = consumer._channel
        delayed = Delayed(channel, HAND + HAND // 2)
        half = first_half(consumer)
        assert not channel.arrivals
        settle = channel.settle

        def late(*words: Any, **more: Any) -> bool:
            assert channel.loop.wait(lambda: len(delayed.kept) == HAND // 2, LIMIT_S)
            delayed.arrive()
            assert channel.loop.wait(lambda: len(channel.arrivals) == HAND // 2, LIMIT_S)
            return settle(*words, **more)

        monkeypatch.setattr(channel, "settle", late)
        came = consumer.settle([Ack(one.receipt) for one in half], take=HAND).deliveries
        monkeypatch.setattr(channel, "settle", settle)
        assert len(came) == HAND // 2
        assert len(ids) - HAND - len(half) - adaptive.counts(QUEUE).ready <= HAND
        consumer.release_ahead()
        assert adaptive.counts(QUEUE).ready == len(ids) - HAND - len(half) - len(came)


def test_a_crash_is_counted_though_the_job_is_given_back_on_its_way(
    server: PrivateRabbitMQ, unhurried: None
) -> None:
    """By the adapter, where the queue can't count (RTY-3)."""
    with server.client(f"t{time.monotonic_ns()}", prefetch=None, retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue(QUEUE, QueueKind.PRIORITY))
        ids = filled(client, 6 * HAND)
        with client.open_consumer(QUEUE) as doomed, client.open_consumer(QUEUE) as busy:
            receive(doomed, HAND)
            half = first_half(busy)
            cut(doomed._channel)
            eventually(lambda: client.counts(QUEUE).ready == 4 * HAND, LIMIT_S, "what the dead had is back")
            next_half = busy.settle([Ack(one.receipt) for one in half], take=HAND).deliveries
            busy.release_ahead()
            with client.open_consumer(QUEUE) as other:
                came = receive(other, 4 * HAND)
                crashed = {one.id for one in [*next_half, *came] if one.crashes}
        assert crashed == set(ids[:HAND])


def test_closing_gives_back_what_is_on_its_way(adaptive: RabbitMQClient) -> None:
    """As it does what is in hand (SET-4)."""
    ids = filled(adaptive, 6 * HAND)
    with adaptive.open_consumer(QUEUE) as busy:
        first_half(busy)
    busy.release_ahead()  # as a consumer's other thread may, which learns then that its lease is lost
    with adaptive.open_consumer(QUEUE) as other:
        came = receive(other, 5 * HAND)
        assert sorted(one.id for one in came) == ids[HAND:]
        assert {one.crashes for one in came} == {0}


def test_a_cut_gives_back_what_is_on_its_way(adaptive: RabbitMQClient) -> None:
    """And what was in hand is lost to the consumer; both count as with a consumer that died (RTY-3)."""
    ids = filled(adaptive, 6 * HAND)
    with adaptive.open_consumer(QUEUE) as unlucky:
        half = first_half(unlucky)
        eventually(lambda: adaptive.counts(QUEUE).ready == 4 * HAND, LIMIT_S, "the other half is on its way")
        cut(unlucky._channel)
        settled = unlucky.settle([Ack(one.receipt) for one in half], take=HAND)
        assert set(settled.outcomes) == {SettleOutcome.LOST}
        came = receive(unlucky, 5 * HAND)
        assert {one.id for one in came} == set(ids[HAND:])
        assert {one.id for one in came if one.crashes} == set(ids[HAND : 2 * HAND])


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_asked_for_next_the_account_adds_up(adaptive: RabbitMQClient, seed: int) -> None:
    """More, less, nothing, some settled and some not: every job once, and no more of them than asked for."""
    random = Random(seed)
    ids = filled(adaptive, 6 * HAND)
    held: list[Delivery] = []
    done: list[str] = []
    allowed = 0
    with adaptive.open_consumer(QUEUE) as consumer:
        while len(done) < len(ids):
            take = random.choice([HAND, HAND, HAND, HAND + 50, HAND // 2, 3, 0])
            match random.choice(["settle", "settle", "settle", "settle some", "receive", "release ahead"]):
                case "receive" if take:
                    came = consumer.receive(take, 0.05)
                    allowed = len(held) + take
                case "release ahead":
                    consumer.release_ahead()
                    came, allowed = [], len(held)
                case step:
                    keep = random.randrange(len(held) + 1) if step == "settle some" else 0
                    acked, held = held[keep:], held[:keep]
                    settled = consumer.settle([Ack(one.receipt) for one in acked], take=take)
                    assert settled.outcomes == [SettleOutcome.OK] * len(acked)
                    done += [one.id for one in acked]
                    came = settled.deliveries
                    allowed = len(held) + take if take else max(allowed, len(held))
            assert {one.crashes for one in came} <= {0}
            held += came
            assert len(ids) - len(done) - adaptive.counts(QUEUE).ready <= allowed
        assert sorted(done) == ids
