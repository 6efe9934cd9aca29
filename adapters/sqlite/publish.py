"""Publishing."""

from collections.abc import Sequence
from math import ceil

from ...ports import Guard, Message, Next, PublishStatus
from .coordination import Coordination
from .dead_letters import free_ids
from .transaction import Transaction


def publish(tx: Transaction, messages: Sequence[Message]) -> list[PublishStatus]:
    """Put messages into the queue, in order, but those whose id is live (PUB-5)."""
    before = tx.take_numbers(len(messages))
    inserted = _insert(tx, messages, before)
    if inserted < len(messages) and free_ids(tx, (message.id for message in messages)):
        inserted += _insert(tx, messages, before)
    fresh = list(enumerate(messages, before + 1))
    statuses = [PublishStatus.ACCEPTED] * len(messages)
    if inserted < len(messages):
        rows = tx.db.execute(
            "SELECT seq FROM job WHERE seq > ? AND seq <= ?", (before, before + len(messages))
        )
        there = {seq for (seq,) in rows.fetchall()}
        statuses = [PublishStatus.ACCEPTED if seq in there else PublishStatus.DUPLICATE for seq, _ in fresh]
        fresh = [(seq, message) for seq, message in fresh if seq in there]
    delayed = [
        (tx.now + ceil(message.delay_s * 1_000_000), seq) for seq, message in fresh if message.delay_s > 0
    ]
    tx.put([(tx.rank(seq, message.priority), seq) for seq, message in fresh if message.delay_s <= 0])
    if delayed:
        tx.delay(delayed)
    # What became of an earlier job of the same id is no answer to a question for this one.
    if tx.db.execute("SELECT 1 FROM result WHERE queue = ? LIMIT 1", (tx.key,)).fetchone():
        tx.db.executemany(
            "DELETE FROM result WHERE queue = ? AND id = ?", [(tx.key, message.id) for _, message in fresh]
        )
    return statuses


def _insert(tx: Transaction, messages: Sequence[Message], before: int) -> int:
    """Insert the rows of messages, but those whose ids or numbers are there; return how many it inserted."""
    return tx.db.executemany(
        "INSERT OR IGNORE INTO job (seq, queue, id, priority, body) VALUES (?, ?, ?, ?, ?)",
        [
            (seq, tx.key, message.id, message.priority, message.body)
            for seq, message in enumerate(messages, before + 1)
        ],
    ).rowcount


def publish_next(tx: Transaction, then: Sequence[Next]) -> None:
    """Put next jobs into their queues, which are declared, in order."""
    messages: dict[str, list[Message]] = {}
    for step in then:
        messages.setdefault(step.queue, []).append(step.message)
    for queue, those in messages.items():
        publish(tx.of(queue), those)


def publish_guarded(tx: Transaction, message: Message, guard: Guard) -> PublishStatus | None:
    """Put a message into the queue and write the guard's record, unless that has another version (CRD-4)."""
    records = Coordination(tx.db, tx.namespace, tx.now)
    if records.put(guard.key, guard.value, guard.expected, guard.ttl_s) is None:
        return None
    return publish(tx, [message])[0]
