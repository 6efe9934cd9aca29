"""DLY: jobs that are to run later."""

import time

from hypothesis import strategies as st

from ...domain import Job
from ...domain.job import utcnow
from ..app import QUEUE, Numbers, app_on
from ..bench import Bench, Rig
from ..registry import check
from ..violation import demand
from .receiving import blocked_receive


@check("DLY-1", "DLY-3", "RCV-3")
def nothing_is_early_and_nothing_blocks(bench: Bench) -> None:
    """Jobs of mixed delays, published in any order, come once, when they are due, each by its own time."""
    step_s = bench.capabilities.delay_resolution_s + 0.2
    steps = st.lists(st.sampled_from([0, 1, 2, 4]), min_size=1, max_size=6)

    @bench.waited_property(queues=st.lists(steps, min_size=1, max_size=4))
    def _(queues: list[list[int]]) -> None:
        with bench.rigs(len(queues)) as rigs:
            lines = [_Delayed(rig, step_s, steps) for rig, steps in zip(rigs, queues, strict=True)]
            for _ in range(max(map(max, queues)) + 2):
                for line in lines:
                    line.look()
                bench.harness.advance(step_s)
            for line in lines:
                demand("DLY-2", line.came == line.due.keys(), f"only {line.came} of {line.due.keys()} came")


class _Delayed:
    """A queue with jobs that are each due after a number of steps, and what came of it."""

    def __init__(self, rig: Rig, step_s: float, steps: list[int]) -> None:
        self.due: dict[str, float] = {}
        """When each job is due at the earliest."""
        self.came: set[str] = set()
        self._rig = rig
        self._tolerated_s = rig.backend.capabilities.delay_resolution_s + step_s
        self._consumer = rig.consumer()
        for number, step in enumerate(steps):
            self.due[f"job-{number}"] = rig.bench.harness.now() + step * step_s
            rig.publish(f"job-{number}", delay_s=step * step_s)

    def look(self) -> None:
        now = self._rig.bench.harness.now
        asked = now()
        for delivery in self._consumer.receive(len(self.due), 0.0):
            early_s = self.due[delivery.id] - now()
            demand("DLY-1", early_s <= 0, f"{delivery.id} came {early_s:.3f} s early")
            demand("RCV-3", delivery.id not in self.came, f"{delivery.id} came twice")
            self.came.add(delivery.id)
        latest = asked - self._tolerated_s
        late = [id_ for id_, moment in self.due.items() if moment < latest and id_ not in self.came]
        demand("DLY-3", not late, f"{late} should have come")


@check("DLY-2")
def a_blocked_receiver_is_woken_when_a_job_is_due(bench: Bench) -> None:
    """A receiver that waits gets a delayed job when it is due, and a sooner one that is published later."""
    resolution_s = bench.capabilities.delay_resolution_s
    with bench.rig() as rig:
        waiting = bench.start(blocked_receive(rig.consumer()))
        time.sleep(0.05)
        rig.publish("far", delay_s=3600)
        rig.publish("later", delay_s=resolution_s + 1.5)
        rig.publish("sooner", delay_s=resolution_s + 0.3)
        (delivery,) = bench.finish(waiting, within_s=resolution_s * 2 + 0.3 + bench.harness.bound_s)
        demand("DLY-2", delivery.id == "sooner", f"{delivery.id} came first")


@check("DLY-3")
def a_delayed_job_waits_in_the_broker(bench: Bench) -> None:
    """A delayed job outlives its publisher and every consumer, and is counted as delayed."""
    soon_s = bench.capabilities.delay_resolution_s + 0.3
    with bench.backends(2) as (publisher, other):
        rig = bench.rig_on(publisher)
        consumer = rig.consumer()
        rig.publish("delayed", delay_s=soon_s)
        rig.receive_nothing(consumer)
        consumer.close()
        publisher.close()
        heir = bench.rig_on(other)
        heir.expect_counts(delayed=1)
        bench.harness.advance(soon_s + bench.capabilities.delay_resolution_s)
        assert heir.receive_one(heir.consumer()).id == "delayed"


@check("DLY-3")
def a_far_job_blocks_no_other(bench: Bench) -> None:
    """Jobs that are due now pass any number of jobs that are due in a year."""
    with bench.rig() as rig:
        rig.publish(*[f"far-{n}" for n in range(50)], delay_s=365 * 86_400)
        rig.publish("now")
        assert rig.receive_one(rig.consumer()).id == "now"
        rig.expect_counts(delayed=50, in_flight=1)


@check("DLY-1")
def the_application_delays_as_asked(bench: Bench) -> None:
    """delay_s and a job's own not_before both hold it back; a moment that has passed doesn't."""
    with app_on(bench) as app:
        app.publish(Numbers(), delay_s=3600)
        now = utcnow()
        app.publish(Job(schema_name=QUEUE, payload=Numbers(), not_before=now.replace(year=now.year - 1)))
        counts = app.orchestrator.counts(QUEUE)
        demand("DLY-1", (counts.ready, counts.delayed) == (1, 1), f"the counts are {counts}")
        demand(
            "CNT-1",
            app.orchestrator.count_queue_messages(QUEUE) == 2,
            "a delayed job doesn't count as waiting",
        )
