"""DLQ, DLY, ORD: ids, priorities, arrivals, due times and deaths each have an order of their own."""

from collections.abc import Sequence

from hypothesis import strategies as st

from ...domain import QueueKind
from ...ports import Ack, ConsumerBackend, Dead, Lease, Message, Redelivery, Release
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check
from ..violation import demand

_IDS = ("m", "c", "x", "a", "t", "g")
"""In publish order, which is neither the order of the letters nor its reverse."""
_PRIORITIES = {"m": 4, "c": 9, "x": 0, "a": 4, "t": 7, "g": 0}
"""Of the jobs of these ids, where the queue has any."""
_FIRST, *_NEWER = ("w", "y", "b")
"""A job before those, and jobs after them, all of the priority of the first of them."""
_ORDERS = st.permutations(_IDS)


def _kinds(context: CheckContext) -> list[QueueKind]:
    able = {QueueKind.STACK: context.capabilities.stack, QueueKind.PRIORITY: context.capabilities.priority}
    return [kind for kind in QueueKind if able.get(kind, True)]


def _message(kind: QueueKind, id_: str, delay_s: float = 0.0) -> Message:
    priority = _PRIORITIES.get(id_, 4) if kind is QueueKind.PRIORITY else 0
    return Message(id_, b'{"id":"%b"}' % id_.encode(), priority, delay_s)


def _served(kind: QueueKind, arrived: Sequence[str]) -> list[str]:
    """In which order a queue serves jobs that arrived in this order."""
    if kind is QueueKind.STACK:
        return [*reversed(arrived)]
    return sorted(arrived, key=lambda id_: -_message(kind, id_).priority)


def _hold_all(queue: QueueUnderTest, consumer: ConsumerBackend) -> dict[str, str]:
    """Receive the job of each id, and return the receipts by id."""
    held: dict[str, str] = {}
    while len(held) < len(_IDS):
        came = queue.receive(consumer, len(_IDS))
        demand("I1", came, f"{_IDS} were published, and only {list(held)} came")
        held |= {delivery.id: delivery.receipt for delivery in came}
    return held


@check("DLQ-1", "DLQ-2")
def the_dead_are_listed_and_redriven_as_they_died(context: CheckContext) -> None:
    """The oldest death is first, whatever the ids, priorities and arrivals: listed, paged and redriven."""

    @context.property(
        kind=st.sampled_from(_kinds(context)), died=_ORDERS, at_once=st.booleans(), limit=st.integers(1, 4)
    )
    def _(kind: QueueKind, died: list[str], at_once: bool, limit: int) -> None:
        with context.queue(kind) as queue:
            queue.backend.publish(queue.name, [_message(kind, id_) for id_ in _IDS])
            consumer = queue.consumer()
            held = _hold_all(queue, consumer)
            deaths = [Dead(held[id_], "rejected", id_) for id_ in died]
            for batch in [deaths] if at_once else [[death] for death in deaths]:
                consumer.settle(batch)
            queue.expect_counts(dead=len(died))
            _demand_listed(queue, died, limit)
            queue.backend.discard(queue.name, [died[1]])
            left = [died[0], *died[2:]]
            _demand_listed(queue, left, limit)
            queue.backend.redrive(queue.name)
            queue.expect_counts(ready=len(left))
            came, expected = queue.drain(consumer, len(left)), _served(kind, left)
            found = f"on a {kind} queue, {left} had died and were redriven: {came} came, expected {expected}"
            demand("DLQ-2", came == expected, found)


def _demand_listed(queue: QueueUnderTest, expected: list[str], limit: int) -> None:
    """Demand that the whole listing is in this order, and its pages too."""
    whole = [letter.id for letter in queue.backend.dead_letters(queue.name)]
    demand("DLQ-1", whole == expected, f"they died as {expected}, and are listed as {whole}")
    paged: list[str] = []
    for offset in range(0, len(expected) + limit, limit):
        page = queue.backend.dead_letters(queue.name, limit=limit, offset=offset)
        paged += [letter.id for letter in page]
    demand("DLQ-1", paged == expected, f"they died as {expected}; pages of {limit} list them as {paged}")


@check("DLY-2", "ORD-3", takes_long=True)
def what_is_due_joins_in_the_order_of_its_times(context: CheckContext) -> None:
    """What is due first joins first, whatever the ids, priorities and arrivals, though nobody looked then."""
    step_s = context.capabilities.delay_resolution_s + 0.3

    @context.waited_property(cases=2, due=_ORDERS)
    def _(due: list[str]) -> None:
        for longer in (1, 4, 16):
            if _join_when_due(context, due, step_s * longer):
                return
        raise AssertionError(f"this machine was too slow to publish within {16 * step_s:g} s")


def _join_when_due(context: CheckContext, due: list[str], step_s: float) -> bool:
    """Publish jobs that are due in this order, in a queue of each kind, and demand the order of delivery.

    Returns:
        Whether this machine published them fast enough to tell.
    """
    harness, last_s = context.harness, step_s * len(due)
    with context.backends(1) as (backend,):
        queues = [(kind, context.queue_on(backend, kind, name=f"jobs-{kind}")) for kind in _kinds(context)]
        for kind, queue in queues:
            began = harness.now()
            times = {id_: step_s * place for place, id_ in enumerate(due, 1)}
            backend.publish(queue.name, [_message(kind, id_, times[id_]) for id_ in _IDS])
            if harness.now() - began >= step_s:
                return False
        harness.advance(last_s + 2 * context.capabilities.delay_resolution_s)
        for kind, queue in queues:
            if context.capabilities.lease is Lease.CONNECTION:  # such a broker moves on its own what is due
                queue.expect_counts(ready=len(due))
            came, expected = queue.drain(queue.consumer(), len(due)), _served(kind, due)
            clause = "ORD-3" if kind is QueueKind.PRIORITY else "DLY-2"
            found = f"on a {kind} queue, {due} were due in this order: {came} came, expected {expected}"
            demand(clause, came == expected, found)
    return True


@check("ORD-4")
def what_comes_back_stands_where_it_stood(context: CheckContext) -> None:
    """Released in any order, one by one or at once, jobs stand by priority and arrival, before newer ones."""

    @context.property(
        kind=st.sampled_from(_kinds(context)), released=_ORDERS, kept=st.integers(0, 3), at_once=st.booleans()
    )
    def _(kind: QueueKind, released: list[str], kept: int, at_once: bool) -> None:
        with context.queue(kind) as queue:
            queue.backend.publish(queue.name, [_message(kind, id_) for id_ in _IDS])
            consumer = queue.consumer()
            held = _hold_all(queue, consumer)
            queue.backend.publish(queue.name, [_message(kind, id_) for id_ in _NEWER])
            back = released[kept:]
            releases = [Release(held[id_]) for id_ in back]
            for batch in [releases] if at_once else [[release] for release in releases]:
                consumer.settle(batch)
            waiting = [id_ for id_ in (*_IDS, *_NEWER) if id_ in back or id_ in _NEWER]
            _demand_places(queue, kind, consumer, None, waiting, back)


@check("ORD-4", "LSE-1", takes_long=True)
def what_the_dead_held_stands_where_it_stood(context: CheckContext) -> None:
    """Jobs of several consumers that died stand by priority and arrival, and a busy consumer gets them so."""
    harness = context.harness

    @context.waited_property(cases=2, shares=st.lists(st.integers(1, 3), min_size=1, max_size=3))
    def _(shares: list[int]) -> None:
        with context.backends(1) as (backend,):
            queues = [
                (kind, context.queue_on(backend, kind, name=f"jobs-{kind}")) for kind in _kinds(context)
            ]
            lines = [_Doomed(kind, queue, shares) for kind, queue in queues]
            harness.advance(harness.redelivery_s(harness.lease_s))
            for line in lines:
                line.demand_places()


class _Doomed:
    """A queue on which consumers die with jobs, while another is at work."""

    def __init__(self, kind: QueueKind, queue: QueueUnderTest, shares: Sequence[int]) -> None:
        harness = queue.context.harness
        self._kind, self._queue = kind, queue
        queue.backend.publish(queue.name, [_message(kind, _FIRST)])
        self._busy = queue.consumer()
        self._held = queue.receive_one(self._busy).receipt
        queue.backend.publish(queue.name, [_message(kind, id_) for id_ in _IDS])
        doomed = [queue.consumer(lease_s=harness.lease_s) for _ in shares]
        lost: dict[str, None] = {}
        for consumer, share in zip(doomed, shares, strict=True):
            if (wanted := min(share, len(_IDS) - 1 - len(lost))) > 0:
                lost |= dict.fromkeys(delivery.id for delivery in queue.receive(consumer, wanted))
        taken = self._busy.settle([Ack(self._held)], take=1).deliveries or queue.receive(self._busy)
        self._held = taken[0].receipt  # it stands behind what the doomed hold
        self._lost = [id_ for id_ in lost if id_ != taken[0].id]
        for consumer in reversed(doomed):
            harness.crash(consumer)
        queue.backend.publish(queue.name, [_message(kind, id_) for id_ in _NEWER])
        self._waiting = [id_ for id_ in (*_IDS, *_NEWER) if id_ != taken[0].id]

    def demand_places(self) -> None:
        """Demand that the jobs of the dead are served where they stood."""
        if self._queue.backend.capabilities.lease is Lease.CONNECTION:  # it notices a death when it does
            self._queue.expect_counts(ready=len(self._waiting), in_flight=1)
        _demand_places(self._queue, self._kind, self._busy, self._held, self._waiting, self._lost)


def _demand_places(
    queue: QueueUnderTest,
    kind: QueueKind,
    busy: ConsumerBackend,
    held: str | None,
    waiting: Sequence[str],
    back: Sequence[str],
) -> None:
    """Have a consumer take one job as it settles the one before; demand that those back stand as declared.

    Args:
        queue: The queue.
        kind: Its kind.
        busy: The consumer.
        held: What it holds, if anything.
        waiting: The ids of all jobs that wait, by arrival.
        back: Those of them that came back.
    """
    came: list[str] = []
    while len(came) < len(waiting):
        done = [] if held is None else [Ack(held)]
        taken = busy.settle(done, take=1).deliveries or queue.receive(busy)
        demand("LSE-1", taken, f"of {list(waiting)}, of which {list(back)} had come back, only {came} came")
        held = taken[0].receipt
        came.append(taken[0].id)
    expected = _served(kind, waiting)
    found = f"on a {kind} queue with {list(waiting)}, of which {list(back)} had come back"
    demand("I1", sorted(came) == sorted(expected), f"{found}, {came} came")
    match queue.backend.capabilities.redelivery:
        case Redelivery.IN_ORDER:
            demand("ORD-4", came == expected, f"{found}, {came} came, expected {expected}")
        case Redelivery.HEAD:  # those that came back may have changed places
            is_right = [_place(kind, id_, back) for id_ in came] == [
                _place(kind, id_, back) for id_ in expected
            ]
            demand("ORD-4", is_right, f"{found}, {came} came, expected as {expected}")


def _place(kind: QueueKind, id_: str, back: Sequence[str]) -> tuple[int, str]:
    """What tells the place of a job from that of another: those that came back are alike."""
    return (_message(kind, id_).priority, "" if id_ in back else id_)
