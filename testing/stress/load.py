"""Threads that use one client for everything it can do, and a log of the answers."""

import secrets
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from mindtrace.jobs import OrchestratorBackend
from mindtrace.jobs.domain import Queue, QueueKind
from mindtrace.jobs.domain.errors import QueueConflict, QueueNotFound
from mindtrace.jobs.ports import (
    Ack,
    Dead,
    Lease,
    Message,
    PublishStatus,
    Release,
    Retry,
    Settlement,
    SettleOutcome,
)

SHARED = "stress"
"""The queue that all threads use."""
_FAR_S = 86_400.0
_QUIET_S = 2.0
"""Longer than any retry or delay of the load, except those of a day."""


@dataclass
class CallLog:
    """The answers that the threads got. Any thread may add to it."""

    calls: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    """Answers that no call may get, each with how often it came."""
    accepted: set[str] = field(default_factory=set)
    far: set[str] = field(default_factory=set)
    """Of these, those delayed by a day."""
    charged: set[str] = field(default_factory=set)
    """Jobs charged with a crash."""
    ended: Counter[str] = field(default_factory=Counter)
    """How often each job was acked or dead-lettered with the answer OK."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, name: str, error: BaseException | None) -> None:
        """Count a call, and what was wrong with its answer."""
        with self.lock:
            self.calls[name] += 1
            if error is not None:
                self.wrong[f"{name}: {type(error).__name__}: {error}"] += 1


class Load:
    """The work of one thread.

    Args:
        client: The client that all share.
        log: Where answers are counted.
        seed: What the thread does in which order.
    """

    def __init__(self, client: OrchestratorBackend, log: CallLog, seed: int) -> None:
        self._client = client
        self._log = log
        self._random = Random(seed)
        self._own = Queue(f"own-{secrets.token_hex(4)}")
        self._actions: list[Callable[[], None]] = [
            self.publish,
            self.publish_soon,
            self.publish_far,
            self.consume,
            self.consume,
            self.count,
            self.list_dead,
            self.redrive,
            self.declare,
            self.declare_otherwise,
            self.ask_for_missing,
            self.make_and_remove,
        ]

    def step(self) -> None:
        """Do one thing."""
        action = self._random.choice(self._actions)
        try:
            action()
        except Exception as error:
            self._log.note(action.__name__, error)
        else:
            self._log.note(action.__name__, None)

    def publish(self, delay_s: float = 0.0) -> None:
        """Publish some jobs to the shared queue."""
        messages = [
            Message(secrets.token_hex(8), b"{}", delay_s=delay_s)
            for _ in range(self._random.choice([1, 1, 5]))
        ]
        outcomes = self._client.publish(SHARED, messages)
        _expect([outcome.status for outcome in outcomes], [PublishStatus.ACCEPTED] * len(messages))
        with self._log.lock:
            ids = {message.id for message in messages}
            self._log.accepted |= ids
            if delay_s == _FAR_S:
                self._log.far |= ids

    def publish_soon(self) -> None:
        """Publish jobs that are due soon."""
        self.publish(self._random.choice([0.05, 0.3, 1.0]))

    def publish_far(self) -> None:
        """Publish jobs that are due in a day."""
        self.publish(_FAR_S)

    def consume(self) -> None:
        """Open a consumer, receive some jobs, and settle each in one way or another."""
        with self._client.open_consumer(SHARED, lease_s=60.0, prefetch=4) as consumer:
            deliveries = consumer.receive(4, 0.05)
            settlements: list[Settlement] = []
            for delivery in deliveries:
                if delivery.crashes:
                    self._note_charged(delivery.id)
                receipt = delivery.receipt
                settlements.append(
                    self._random.choice(
                        [
                            Ack(receipt),
                            Ack(receipt),
                            Ack(receipt),
                            Retry(receipt, 0.1, "again"),
                            Release(receipt),
                            Dead(receipt, "rejected", "no"),
                        ]
                    )
                )
            outcomes = consumer.settle(settlements).outcomes
            _expect(outcomes, [SettleOutcome.OK] * len(settlements))
            with self._log.lock:
                for delivery, settlement in zip(deliveries, settlements, strict=True):
                    if isinstance(settlement, Ack):
                        self._log.ended[delivery.id] += 1

    def _note_charged(self, job_id: str) -> None:
        """Note a job that is charged with a crash, though no consumer died.

        A broker that pushes may do so: it counts what it was sending when a consumer cancelled (RTY-3).
        """
        with self._log.lock:
            self._log.charged.add(job_id)
        if self._client.capabilities.lease is not Lease.CONNECTION:
            raise AssertionError(f"job {job_id} is charged with a crash that never was")

    def count(self) -> None:
        """Count the shared queue's jobs."""
        counts = self._client.counts(SHARED)
        if min(counts.ready, counts.delayed, counts.dead) < 0:
            raise AssertionError(f"{counts}")

    def list_dead(self) -> None:
        """List some dead letters."""
        for letter in self._client.dead_letters(SHARED, limit=20):
            _expect((letter.reason, letter.error), ("rejected", "no"))

    def redrive(self) -> None:
        """Make a dead job ready again."""
        self._client.redrive(SHARED, [letter.id for letter in self._client.dead_letters(SHARED, limit=1)])

    def declare(self) -> None:
        """Declare the shared queue again."""
        self._client.declare(Queue(SHARED))

    def declare_otherwise(self) -> None:
        """Declare it with another kind, which must be refused."""
        _expect_error(QueueConflict, lambda: self._client.declare(Queue(SHARED, QueueKind.PRIORITY)))

    def ask_for_missing(self) -> None:
        """Use a queue that doesn't exist, which must be refused."""
        message = Message("a", b"{}", delay_s=self._random.choice([0.0, 1.0]))
        calls: list[Callable[[], object]] = [
            lambda: self._client.counts("missing"),
            lambda: self._client.publish("missing", [message]),
            lambda: self._client.open_consumer("missing"),
            lambda: self._client.purge("missing"),
            lambda: self._client.dead_letters("missing"),
        ]
        _expect_error(QueueNotFound, self._random.choice(calls))

    def make_and_remove(self) -> None:
        """Declare a queue, use it, purge it and delete it: nobody else knows it."""
        own, client = self._own.name, self._client
        client.declare(self._own)
        client.publish(own, [Message("now", b"{}"), Message("later", b"{}", delay_s=60.0)])
        counts = client.counts(own)
        _expect((counts.ready, counts.delayed), (1, 1))
        _expect(client.purge(own), 2)
        _expect(client.counts(own).waiting, 0)
        client.delete(own)
        _expect_error(QueueNotFound, lambda: client.counts(own))


def find_discrepancies(client: OrchestratorBackend, log: CallLog) -> list[str]:
    """Redrive and run all that is left, and return what doesn't add up. No other thread may be at work."""
    client.redrive(SHARED)
    with client.open_consumer(SHARED, lease_s=60.0) as consumer:
        while deliveries := consumer.receive(500, _QUIET_S):
            outcomes = consumer.settle([Ack(delivery.receipt) for delivery in deliveries]).outcomes
            if set(outcomes) != {SettleOutcome.OK}:
                log.wrong[f"at the end: {Counter(outcomes)}"] += 1
            log.ended.update(delivery.id for delivery in deliveries)
    counts = client.counts(SHARED)
    lost = log.accepted - log.far - log.ended.keys()
    twice = [id_ for id_, times in log.ended.items() if times > 1]
    found = [f"{times} x {what}" for what, times in log.wrong.most_common()]
    found += [f"{len(lost)} jobs are lost"] * bool(lost)
    found += [f"{len(twice)} jobs ended twice"] * bool(twice)
    if (counts.ready, counts.delayed, counts.dead) != (0, len(log.far), 0):
        found.append(f"{len(log.far)} jobs wait for tomorrow, and the counts are {counts}")
    return found


def run(client: OrchestratorBackend, threads: int, over: Callable[[int], bool]) -> tuple[CallLog, list[str]]:
    """Let threads work until ``over``, which is asked with how many steps a thread has made.

    Returns:
        The answers, and what is wrong with them.
    """
    client.declare(Queue(SHARED))
    log = CallLog()

    def work(seed: int) -> None:
        load, steps = Load(client, log, seed), 0
        while not over(steps):
            load.step()
            steps += 1

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return log, find_discrepancies(client, log)


def _expect(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{found} in place of {expected}")


def _expect_error(error: type[Exception], call: Callable[[], object]) -> None:
    try:
        answer = call()
    except error:
        return
    raise AssertionError(f"{answer} in place of {error.__name__}")
