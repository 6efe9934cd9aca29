"""Whatever consumers do, and whenever they die: never more jobs of a key than may run."""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mindtrace.jobs import Limit
from mindtrace.jobs.ports import Ack, Delivery, Release, Retry, Settlement, SettleOutcome

from .test_limits import LEASE_S, Broker, Frame

LIMIT = 2
CAMERAS = 3
CONSUMERS = 4

consumers = st.integers(0, CONSUMERS - 1)
steps = st.one_of(
    st.tuples(st.just("receive"), consumers, st.integers(1, 5)),
    st.tuples(
        st.sampled_from(["ack", "retry", "release", "extend", "release all", "die"]), consumers, st.just(1)
    ),
    st.tuples(st.just("wait"), st.just(0), st.sampled_from([1, 5, 9, 17, 40])),
)


class Model:
    """Which jobs run as far as leases go, and until when."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.consumers = [broker.consumer() for _ in range(CONSUMERS)]
        self.held: list[dict[str, tuple[Delivery, float]]] = [{} for _ in self.consumers]
        self.dead: list[tuple[Delivery, float]] = []

    def step(self, what: str, number: int, amount: int) -> None:
        consumer, held, now = self.consumers[number], self.held[number], self.broker.clock.now()
        if what == "receive":
            for delivery in consumer.receive(amount, 0.0):
                held[delivery.receipt] = (delivery, now + LEASE_S * 5 / 6)  # it may have waited here
        elif what == "extend" and held:
            for receipt, outcome in zip(list(held), consumer.extend(list(held)), strict=True):
                delivery, _ = held.pop(receipt)
                if outcome is SettleOutcome.OK:
                    held[receipt] = (delivery, now + LEASE_S)
        elif what == "release all":
            consumer.release_ahead()
        elif what == "die":
            self.dead += held.values()
            held.clear()
            self.consumers[number] = self.broker.consumer()
        elif what == "wait":
            self.broker.clock.advance(amount)
        elif held:
            receipt = next(iter(held))
            settlement: dict[str, Settlement] = {
                "ack": Ack(receipt),
                "retry": Retry(receipt, 0.0, ""),
                "release": Release(receipt),
            }
            consumer.settle([settlement[what]])
            del held[receipt]

    def running(self) -> Counter[int]:
        """How many jobs of each camera are leased."""
        now = self.broker.clock.now()
        leased = [*self.dead, *(job for held in self.held for job in held.values())]
        return Counter(camera(delivery) for delivery, until in leased if until > now)


def camera(delivery: Delivery) -> int:
    payload = delivery.body.partition(b'"payload":')[2][:-1]
    return Frame.model_validate_json(payload).camera


@settings(deadline=None, max_examples=200)
@given(st.lists(steps, max_size=60), st.lists(st.integers(0, CAMERAS - 1), min_size=5, max_size=30))
def test_never_more_jobs_of_a_key_are_leased_than_may_run(script: list[Any], cameras: list[int]) -> None:
    broker = Broker(limit=Limit(LIMIT, by="camera"))
    with broker.client:
        broker.publish(*cameras)
        model = Model(broker)
        for step in script:
            model.step(*step)
            assert max(model.running().values(), default=0) <= LIMIT


@settings(deadline=None, max_examples=50)
@given(st.lists(steps, max_size=30), st.lists(st.integers(0, CAMERAS - 1), min_size=5, max_size=30))
def test_whatever_happened_every_job_can_run_in_the_end(script: list[Any], cameras: list[int]) -> None:
    """No place is lost for good, and no job is forgotten."""
    broker = Broker(limit=Limit(LIMIT, by="camera"))
    with broker.client:
        broker.publish(*cameras)
        model = Model(broker)
        for step in script:
            model.step(*step)
        for number in range(CONSUMERS):
            model.step("die", number, 1)
        broker.clock.advance(2 * LEASE_S)
        last = model.consumers[0]
        for _ in range(20 * len(cameras)):
            batch = last.receive(5, 0.0)
            last.settle([Ack(one.receipt) for one in batch])
            broker.clock.advance(0.5)

        counts = broker.client.counts("frames")
        assert (counts.waiting, counts.in_flight) == (0, 0)
