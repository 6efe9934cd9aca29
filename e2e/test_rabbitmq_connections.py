"""Connections to RabbitMQ that break, open, close or fork at the worst moments."""

import errno
import gc
import os
import select
import signal
import socket
import struct
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any
from unittest import mock

import pika.data
import pytest
from pika.adapters.utils import connection_workflow
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter
from pika.frame import Heartbeat

from background import Background
from brokers.private_server import free_port
from brokers.proxy import Disruption, Proxy
from brokers.rabbitmq_server import PrivateRabbitMQ, retry_timeout
from conditions import LIMIT_S, eventually
from interrupts import interrupt_at
from mindtrace.jobs import RabbitMQClient, RabbitMQConsumerBackend
from mindtrace.jobs.adapters.rabbitmq import client as client_module
from mindtrace.jobs.adapters.rabbitmq.consumer.channel import ConsumerChannel
from mindtrace.jobs.adapters.rabbitmq.transport import connection as connection_module
from mindtrace.jobs.adapters.rabbitmq.transport import request_connection
from mindtrace.jobs.adapters.rabbitmq.transport.driver_connection import DriverConnection
from mindtrace.jobs.adapters.rabbitmq.transport.errors import ConnectionBroken
from mindtrace.jobs.adapters.rabbitmq.transport.leader_follower_loop import LeaderFollowerLoop
from mindtrace.jobs.adapters.rabbitmq.transport.queue_requests import request_queue_state
from mindtrace.jobs.adapters.rabbitmq.transport.request import Request
from mindtrace.jobs.domain import Queue, QueueKind
from mindtrace.jobs.domain.errors import BackendUnavailable, BrokerUnsuitable, Closed, QueueNotFound
from mindtrace.jobs.ports import (
    Ack,
    Cancel,
    Dead,
    Message,
    Next,
    PublishOutcome,
    PublishStatus,
    Release,
    Retry,
    Settlement,
    SettleOutcome,
)

from .rabbitmq_jobs import QUEUE, cut, drained

ACK = b"\x00\x3c\x00\x50"
"""What a Basic.Ack contains."""


@pytest.fixture
def server(rabbitmq_node: PrivateRabbitMQ) -> PrivateRabbitMQ:
    return rabbitmq_node


@pytest.fixture(autouse=True)
def collect_sockets() -> Iterator[None]:
    """Have the garbage collector close the sockets that were given up, here and not in another test.

    Where pika is interrupted as it connects, it isn't trusted to close its socket, which only it has.
    """
    yield
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()


@pytest.fixture
def client(server: PrivateRabbitMQ) -> Iterator[RabbitMQClient]:
    with server.client(f"t{time.monotonic_ns()}", retry_timeout_s=LIMIT_S) as made:
        made.declare(Queue(QUEUE))
        yield made


class CutAt:
    """Cuts a consumer's connection before or after the n-th request over it, until it is lifted."""

    NAMES = ("request", "settle")

    def __init__(self, channel: ConsumerChannel, which: int, *, before: bool) -> None:
        self.cuts = 0
        self._channel = channel
        self._left = which
        for name in self.NAMES:
            setattr(channel, name, self._cutting(getattr(channel, name), before))

    def lift(self) -> None:
        """Cut no more."""
        for name in self.NAMES:
            delattr(self._channel, name)

    def _cutting(self, say: Callable[..., Any], before: bool) -> Callable[..., Any]:
        def cutting(*args: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0 and before:
                self._cut()
            answer = say(*args, **options)
            if self._left == 0 and not before:
                self._cut()
            return answer

        return cutting

    def _cut(self) -> None:
        cut(self._channel)
        self.cuts += 1


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
    """The connection may break at any request: OK is final, LOST leaves it open (LSE-4, I1)."""
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
        cutter = CutAt(consumer._channel, request, before=before)
        (outcome,) = consumer.settle([SETTLEMENTS[how](held.receipt)], take=1).outcomes
        cutter.lift()
    dead = Counter(letter.id for letter in client.dead_letters(queue))
    unheard = before and request == 1
    gone = (how == "ack" and not unheard) or held.id in dead
    left = Counter(drained(client, {f"job-{n}" for n in range(3)} - ({held.id} if gone else set()), queue))
    times = left.pop(held.id, 0)
    assert left == {"job-1": 1, "job-2": 1}, "the others were disturbed"
    outcomes = f"{how} at request {request}: {outcome}, delivered {times} times, dead {dead[held.id]} times"
    if outcome is SettleOutcome.OK:
        expected = {"ack": (0, 0), "dead": (0, 1)}.get(how, (1, 0))
        assert (times, dead[held.id]) == expected, outcomes
    else:
        assert outcome is SettleOutcome.LOST
        # The broker may have heard it all the same, or a part of it: the copy, and not the acknowledgement.
        assert times <= (1 if how in ("ack", "dead") else 2), outcomes
        assert not dead or how == "dead", outcomes
    if unheard:
        assert (outcome, times) == (SettleOutcome.LOST, 1), outcomes
    return cutter.cuts > 0


@pytest.mark.parametrize("how", [*SETTLEMENTS, "then", "dead then", "retry later", "cancel"])
@pytest.mark.parametrize("ahead", [False, True], ids=["asked for", "sent ahead"])
def test_a_settlement_while_the_server_is_away_is_lost_and_raises_nothing(
    server: PrivateRabbitMQ, how: str, ahead: bool
) -> None:
    """The connection was the lease: to try again would settle nothing (LSE-4)."""
    settlements: dict[str, Callable[[str], Settlement]] = {
        **SETTLEMENTS,
        "then": lambda receipt: Ack(receipt, then=(Next(queue, Message("next", b"{}")),)),
        "dead then": lambda receipt: Dead(receipt, "no", "no", (Next(queue, Message("next", b"{}")),)),
        "retry later": lambda receipt: Retry(receipt, 60.0, "no"),
        "cancel": Cancel,
    }
    queue = f"away-{time.monotonic_ns()}"
    with (
        Proxy(server.address.host, server.address.port) as proxy,
        RabbitMQClient("127.0.0.1", proxy.port, namespace="away", retry_timeout_s=LIMIT_S) as client,
    ):
        client.declare(Queue(queue))
        client.publish(queue, [Message(f"job-{n}", b"{}") for n in range(3)])
        with client.open_consumer(queue) as consumer:
            if ahead:
                consumer.allow_ahead(2)
            (held,) = consumer.receive(1, LIMIT_S)
            proxy.close()
            with retry_timeout(client, 0.2):
                for take in (1, 0):
                    outcomes = consumer.settle([settlements[how](held.receipt)], take=take).outcomes
                    assert outcomes == [SettleOutcome.LOST]


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
                proxy.disrupt_next(ACK, Disruption.HOLD)
                answer = settle(*words, **more)
                eventually(lambda: proxy.disrupted, "the acknowledgement is held up")
                for connection in proxy._connections:
                    if connection.disruption is Disruption.HOLD:
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
        with client.open_consumer(QUEUE) as consumer, Background() as threads:
            assert isinstance(consumer, RabbitMQConsumerBackend)
            channel = consumer._channel
            cutter = CutAt(channel, step, before=before)
            waiting = threads.submit(consumer.receive, 1, 10 * LIMIT_S)
            eventually(lambda: cutter.cuts and channel.credit, "it has asked again")  # noqa: B023
            client.publish(QUEUE, [Message(f"job-{step}", b"{}")])
            try:
                came = waiting.result(LIMIT_S)
            finally:
                consumer.interrupt()
            assert [one.id for one in came] == [f"job-{step}"]
        assert drained(client, {f"job-{step}"}) == [f"job-{step}"]


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


def failing_once(owner: Any, name: str, error: BaseException) -> Any:
    """Have a function of a driver's fail when it is next called, before it has done anything."""
    works, errors = getattr(owner, name), [error]

    def fails(*args: Any, **options: Any) -> Any:
        if errors:
            raise errors.pop()
        return works(*args, **options)

    return mock.patch.object(owner, name, fails)


def test_a_connection_that_found_no_free_descriptor_is_made_later(client: RabbitMQClient) -> None:
    """The process can't open another file for a while (CON-1)."""
    full = OSError(errno.EMFILE, "too many open files")
    with (
        mock.patch.object(connection_workflow.socket, "socket", side_effect=full),
        retry_timeout(client, 2.0),
    ):
        (refused,) = client.publish(QUEUE, [Message("refused", b"{}")])
    assert refused.status is PublishStatus.REJECTED
    assert "too many open files" in str(refused.error)
    (accepted,) = client.publish(QUEUE, [Message("accepted", b"{}")])
    assert accepted.status is PublishStatus.ACCEPTED


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (connection_workflow.AMQPConnectionWorkflow, "start"),
        (connection_workflow.AMQPConnectionWorkflow, "_close"),
        (connection_workflow.AMQPConnector, "_close"),
        (DriverConnection, "watch"),
        (DriverConnection, "add_on_close_callback"),
    ],
)
def test_who_is_interrupted_while_a_connection_is_made_can_make_it_again(
    client: RabbitMQClient, owner: type, name: str
) -> None:
    """Also where what is under way isn't told of its end any more (CON-1, CON-2)."""
    with failing_once(owner, name, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        client.publish(QUEUE, [Message("interrupted", b"{}")])
    (outcome,) = client.publish(QUEUE, [Message("later", b"{}")])
    assert outcome.status is PublishStatus.ACCEPTED


def test_who_is_interrupted_as_a_channel_is_opened_can_open_another(server: PrivateRabbitMQ) -> None:
    """Though pika fails each time that it is told of that connection's end (CON-1)."""
    remove_writer, strikes = SelectorIOServicesAdapter.remove_writer, [KeyboardInterrupt()]
    with server.client("opening", heartbeat_s=600, retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue(QUEUE))
        publisher = client._open().publisher._connection

        def struck(*args: Any) -> Any:
            if publisher.state is connection_module.State.OPENING and strikes:
                raise strikes.pop()
            return remove_writer(*args)

        with (
            mock.patch.object(SelectorIOServicesAdapter, "remove_writer", struck),
            mock.patch.object(connection_module._LOGGER, "error"),  # or the records keep what is collected
        ):
            with pytest.raises(KeyboardInterrupt):
                client.publish(QUEUE, [Message("interrupted", b"{}")])
            (outcome,) = client.publish(QUEUE, [Message("later", b"{}")])
        assert outcome.status is PublishStatus.ACCEPTED
        client.delete(QUEUE)


def test_of_several_servers_the_first_that_answers_is_used(server: PrivateRabbitMQ) -> None:
    """Whatever is wrong with those before it, be it that nobody knows their names."""
    hosts = [("nobody.invalid", 5672), ("127.0.0.1", free_port()), ("127.0.0.1", server.address.port)]
    with RabbitMQClient(hosts=hosts, namespace="several", retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue(QUEUE))
        assert client.counts(QUEUE).waiting == 0


def test_a_signal_handler_may_interrupt_a_receiver(client: RabbitMQClient) -> None:
    """However deep in the I/O the signal strikes, nothing is locked out (SET-4)."""
    consumer = client.open_consumer(QUEUE)
    main, over = threading.main_thread().ident, threading.Event()
    assert main is not None

    def send_signals() -> None:
        while not over.wait(0.0007):
            signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda *_: consumer.interrupt())
    try:
        with Background() as threads:
            threads.submit(send_signals)
            try:
                give_up = time.monotonic() + 1.5
                while time.monotonic() < give_up:
                    consumer.receive(1, 5.0)
            finally:
                over.set()
    finally:
        signal.signal(signal.SIGUSR1, before)
    consumer.close()


def test_a_child_leaves_its_parents_consumers_alone(client: RabbitMQClient) -> None:
    """It may close what it inherited: the parent still holds its job (CON-2)."""
    client.publish(QUEUE, [Message("job", b"{}")])
    with client.open_consumer(QUEUE) as consumer:
        (held,) = consumer.receive(1, LIMIT_S)
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


def test_no_thread_of_a_child_gets_its_parents_connections(client: RabbitMQClient) -> None:
    """Also while another thread of it is noticing that it is a child (CON-2)."""
    parents = client._open()
    got: list[object] = []
    opening = threading.Thread(target=lambda: got.append(client._open()))

    def lock() -> Any:
        if opening.ident is None:
            opening.start()
            opening.join(0.5)  # it waits for this thread, or goes on
        return make_lock()

    make_lock = threading.Lock
    client._pid = -1  # as in a child
    with mock.patch.object(client_module.threading, "Lock", lock):
        own = client._open()
        opening.join()
    assert got == [own]
    assert own is not parents
    parents.close()


def test_a_publish_after_a_cut_goes_over_a_new_connection(client: RabbitMQClient) -> None:
    """A connection that can be seen to be gone isn't used, so nothing is UNKNOWN (PUB-1, CON-1)."""
    for number in range(5):
        publisher = client._open().publisher._connection
        client.publish(QUEUE, [Message(f"before-{number}", b"{}")])
        publisher._driver._transport._sock.shutdown(socket.SHUT_RDWR)
        (outcome,) = client.publish(QUEUE, [Message(f"after-{number}", b"{}")])
        assert outcome.status is PublishStatus.ACCEPTED


class Served:
    """Has another thread serve a loop, as that of the heartbeats does now and then, until it is left."""

    def __init__(self, loop: LeaderFollowerLoop) -> None:
        self._loop = loop
        self._inside, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: loop.wait(self._last_look, LIMIT_S))
        self._thread.start()
        assert self._inside.wait(LIMIT_S)

    def leave_to(self, waits: threading.Thread) -> None:
        """Leave once a thread waits for the loop, or has ended without that."""
        eventually(lambda: self._loop._followers or not waits.is_alive(), "it waits, or has ended")
        self._leave.set()
        self._thread.join()
        waits.join()

    def _last_look(self) -> bool:
        if self._loop._leader is None:
            return False
        self._inside.set()
        return self._leave.wait(LIMIT_S)


def test_an_extension_after_a_cut_is_lost_whoever_serves_the_connection(client: RabbitMQClient) -> None:
    """Another thread may have it at that moment, and not have looked since the cut (LSE-4)."""
    client.publish(QUEUE, [Message("job", b"{}")])
    with client.open_consumer(QUEUE) as consumer:
        assert isinstance(consumer, RabbitMQConsumerBackend)
        (held,) = consumer.receive(1, LIMIT_S)
        answers: list[SettleOutcome] = []
        extending = threading.Thread(target=lambda: answers.extend(consumer.extend([held.receipt])))
        served = Served(consumer._channel.loop)
        consumer._channel._driver.drop()
        extending.start()
        served.leave_to(extending)
        assert answers == [SettleOutcome.LOST]


def test_a_settlement_after_a_cut_is_lost_whoever_serves_the_connection(client: RabbitMQClient) -> None:
    """The end may be noticed between two steps, and another thread have the loop at the next (LSE-4)."""
    client.publish(QUEUE, [Message("job", b"{}")])
    with client.open_consumer(QUEUE) as consumer:
        assert isinstance(consumer, RabbitMQConsumerBackend)
        (held,) = consumer.receive(1, LIMIT_S)
        settle = consumer._settler.settle
        served: list[Served] = []
        outcomes: list[SettleOutcome] = []

        def settle_late(*words: Any) -> Any:
            cut(consumer._channel)
            served.append(Served(consumer._channel.loop))
            return settle(*words)

        consumer._settler.settle = settle_late  # type: ignore[method-assign]
        settling = threading.Thread(
            target=lambda: outcomes.extend(consumer.settle([Ack(held.receipt)]).outcomes)
        )
        settling.start()
        eventually(lambda: served, "another thread serves the connection")
        served[0].leave_to(settling)
        consumer._settler.settle = settle  # type: ignore[method-assign]
        assert outcomes == [SettleOutcome.LOST]
    assert drained(client, {"job"}) == ["job"]


def test_an_ack_that_was_interrupted_is_never_taken_for_one_that_counts(client: RabbitMQClient) -> None:
    """At whatever point: its job has ended, or is held still, or is lost and comes again (LSE-4, SET-1)."""
    outcome = SettleOutcome.OK
    with client.open_consumer(QUEUE) as consumer:
        for point in count(1):
            client.publish(QUEUE, [Message(f"job-{point}", b"{}")])
            (held,) = consumer.receive(1, LIMIT_S)
            ack = Ack(held.receipt)
            assert interrupt_at(point, "consumer/backend.py", lambda: consumer.settle([ack]))  # noqa: B023
            (outcome,) = consumer.settle([ack]).outcomes
            if outcome is SettleOutcome.LOST:
                (again,) = consumer.receive(1, LIMIT_S)
                assert again.id == held.id
                assert consumer.settle([Ack(again.receipt)]).outcomes == [SettleOutcome.OK]
            if outcome is SettleOutcome.ALREADY:
                assert point > 1
                break
    assert drained(client, set()) == []


def test_who_settles_as_the_consumer_is_closed_is_told_what_the_broker_confirmed(
    client: RabbitMQClient,
) -> None:
    """Only further jobs don't come any more (LSE-4)."""
    client.publish(QUEUE, [Message("job", b"{}"), Message("next", b"{}")])
    consumer = client.open_consumer(QUEUE)
    (held,) = consumer.receive(1, LIMIT_S)
    settle, closing = consumer._settler.settle, threading.Thread(target=consumer.close)

    def then_closes(*words: Any) -> Any:
        answer = settle(*words)
        if not consumer._closing:
            closing.start()
            eventually(lambda: consumer._closing, "it closes")
        return answer

    with mock.patch.object(consumer._settler, "settle", then_closes):
        assert consumer.settle([Ack(held.receipt)], take=1) == ([SettleOutcome.OK], [])
        closing.join()
    assert drained(client, {"next"}) == ["next"]


def test_a_publish_that_is_interrupted_as_it_waits_costs_no_other_its_confirm(client: RabbitMQClient) -> None:
    """The connection stays, and what wasn't sent of the publish isn't sent later (PUB-1)."""
    client.publish(QUEUE, [Message("before", b"{}")])
    connection = client._open().publisher._connection
    driver, many = connection._driver, [Message(f"job-{number}", b"{}") for number in range(10_000)]
    selector = connection.loop.io._selector
    wait = selector.select

    def interrupted(timeout_s: float) -> Any:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return wait(timeout_s)  # of the thread that sends heartbeats

    with mock.patch.object(selector, "select", interrupted), pytest.raises(KeyboardInterrupt):
        client.publish(QUEUE, many)

    assert client.publish(QUEUE, [Message("after", b"{}")]) == [
        PublishOutcome("after", PublishStatus.ACCEPTED)
    ]
    assert connection._driver is driver
    assert (connection._queued, connection._sent, len(connection._under_way)) == ([], set(), 0)
    assert client.counts(QUEUE).ready < len(many)


def test_a_publish_after_a_cut_is_accepted_whoever_serves_the_connection(client: RabbitMQClient) -> None:
    """Another thread may have it at that moment, and not have looked since the cut (PUB-1, CON-1)."""
    client.publish(QUEUE, [Message("before", b"{}")])
    publisher = client._open().publisher._connection
    outcomes: list[PublishOutcome] = []
    publishing = threading.Thread(
        target=lambda: outcomes.extend(client.publish(QUEUE, [Message("after", b"")]))
    )
    served = Served(publisher.loop)
    publisher._driver.drop()
    publishing.start()
    served.leave_to(publishing)
    assert [outcome.status for outcome in outcomes] == [PublishStatus.ACCEPTED]


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
    with retry_timeout(client, 0.5):
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
    assert "too long for AMQP" in str(outcomes[1].error)
    assert client._open().publisher._connection._driver is connection
    ids = [message.id for message in good[:1] + good]
    assert drained(client, set(ids)) == ids


# -- servers that answer wrongly ------------------------------------------------------------------------


class FakeServer:
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
    fake = FakeServer(None)
    with (
        RabbitMQClient("127.0.0.1", fake.port, retry_timeout_s=0.3) as client,
        pytest.raises(BackendUnavailable),
    ):
        client.declare(Queue(QUEUE))
    fake.close()


def test_a_server_that_is_too_old_is_told_so() -> None:
    """At once, with its version and the one that is needed."""
    fake = FakeServer("3.13.7")
    with (
        RabbitMQClient("127.0.0.1", fake.port, retry_timeout_s=LIMIT_S) as client,
        pytest.raises(BrokerUnsuitable, match=r"RabbitMQ 3\.13\.7 answers, and 4\.0 or newer is needed"),
    ):
        client.declare(Queue(QUEUE))
    fake.close()


def test_requests_share_a_channel_unless_they_are_made_at_once_or_refused(
    client: RabbitMQClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    channel = DriverConnection.channel

    def noted(driver: DriverConnection, **options: Any) -> Any:
        opened.append(driver)
        return channel(driver, **options)

    monkeypatch.setattr(DriverConnection, "channel", noted)
    client.declare(Queue(QUEUE))
    after_the_first = len(opened)
    for _ in range(10):
        client.declare(Queue(QUEUE))
    assert len(opened) == after_the_first

    for _ in range(2):
        with pytest.raises(QueueNotFound):
            client.counts("nobody-declared-it")
    client.declare(Queue(QUEUE))
    assert len(opened) == after_the_first + 2

    with Background() as threads:
        counts = threads.map(lambda _: [client.counts(QUEUE) for _ in range(12)], range(16))
    assert {count.ready for each in counts for count in each} == {0}
    connection = client._open().admin._connection
    assert len(connection._idle) <= request_connection._IDLE_CHANNELS
    assert (connection._requests, connection._sent) == ({}, set())


def test_whoever_is_interrupted_as_an_answer_comes_leaves_no_other_thread_waiting(
    client: RabbitMQClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt breaks the connection, which ends the requests of other threads at once.

    How many points come before the answer depends on which thread was quicker, so it tries more of them until
    enough have struck there.
    """
    connection = client._open().admin._connection
    action = partial(request_queue_state, client._names(QUEUE).work)
    files = ("transport/connection.py", "transport/request_connection.py")
    reply, struck = connection._reply, list[int]()

    def note_interrupt(*answer: Any) -> None:
        try:
            reply(*answer)
        except KeyboardInterrupt:
            struck.append(point)
            raise

    monkeypatch.setattr(connection, "_reply", note_interrupt)

    def ask() -> BaseException | None:
        leads.wait(LIMIT_S)
        try:
            connection.request(action, 10.0)
        except ConnectionBroken as broken:
            return broken.cause
        finally:
            has_asked.set()
            connection.loop.wake()
        return None

    def serve() -> None:
        connection.loop.wait(lambda: leads.set() or has_asked.is_set(), LIMIT_S)

    for point in count(3):  # before that, a request isn't sent yet
        if point > 20 and len(struck) > 1:
            break
        assert point < 200, f"of the interrupts, these struck an answer: {struck}"
        client.counts(QUEUE)
        leads, has_asked = threading.Event(), threading.Event()
        with Background() as threads:
            asked = threads.submit(ask)
            interrupt_at(point, files, serve)
        assert not isinstance(asked.result(), TimeoutError), f"at point {point}"
    assert (connection._requests, connection._sent) == ({}, set())


def test_a_connection_that_is_given_up_for_good_keeps_no_request(client: RabbitMQClient) -> None:
    """It is so after two faults at once."""
    connection = client._open().admin._connection
    fault = mock.Mock(side_effect=RuntimeError)

    def fail_twice() -> None:
        connection.loop._calls.append(fault)
        fault()

    client.counts(QUEUE)
    with Background() as threads:
        asked = threads.submit(connection.request, lambda _channel, _reply: None, LIMIT_S)
        eventually(lambda: connection._requests, "a request is under way")
        connection.loop.call(fail_twice)
        with pytest.raises(ConnectionBroken):
            asked.result(LIMIT_S)
    assert (connection._requests, connection._sent, connection._idle) == ({}, set(), [])
    assert client.counts(QUEUE).ready == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # as above, and it may be collected at any moment
@pytest.mark.parametrize("connects", [False, True])
def test_a_fault_whose_handling_is_interrupted_leaves_a_usable_connection(
    client: RabbitMQClient, connects: bool
) -> None:
    """What was neither dropped nor forgotten would answer nothing any more."""
    connection = client._open().admin._connection
    files = ("connection.py", "pika_io_loop.py", "leader_follower_loop.py", "selectors.py")

    def fail() -> None:
        if connects:
            connection._begin(Request(lambda _channel, reply: reply(None)))
        raise RuntimeError

    for point in count(1):
        client.counts(QUEUE)
        if connects:
            connection.drop()
            eventually(lambda: connection.state is connection_module.State.DISCONNECTED, "it is gone")
        if not interrupt_at(point, files, lambda: connection.loop.call(fail)):
            return
        assert client.counts(QUEUE).ready == 0, f"at point {point}"
