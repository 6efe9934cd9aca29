"""Permits: who gets one, and that none is lost or given twice."""

from collections import Counter
from collections.abc import Callable

import pytest

from mindtrace.jobs.application.consuming.job_permits import JobPermits, PermitShare, Turn
from mindtrace.jobs.application.consuming.permit_order import PermitOrder, StrictOrder, WeightedOrder


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Backlog:
    """A consumer that always has jobs, one at a time."""

    def __init__(self, permits: JobPermits, weight: int = 1) -> None:
        self.share = begun(permits.share(weight))
        self.ran = 0

    def step(self) -> bool:
        """Run one job if there is a permit; return whether."""
        if not self.share.request(1):
            return False
        self.share.bind(1, 1)
        self.ran += 1
        self.share.trim(0)
        return True


def begun(share: PermitShare, at_once: int = 1) -> PermitShare:
    share.begin(at_once, in_batches=False, interrupt=lambda: None, wake=lambda: None)
    return share


def run(backlogs: list[Backlog], jobs: int) -> list[int]:
    """Let consumers run so many jobs in all, and return how many each ran."""
    before = [each.ran for each in backlogs]
    while sum(each.ran for each in backlogs) - sum(before) < jobs:
        assert [True for each in backlogs if each.step()], "nobody has the permit"
    return [each.ran - was for each, was in zip(backlogs, before, strict=True)]


@pytest.mark.parametrize("weights", [(1, 1, 1), (3, 1), (5, 2, 1), (100, 1), (1, 7, 2, 90)])
def test_each_runs_jobs_by_its_weight(weights: tuple[int, ...]) -> None:
    """Within one round of the weights."""
    permits = JobPermits(1, WeightedOrder())
    total = sum(weights)

    ran = run([Backlog(permits, weight) for weight in weights], 20 * total)
    assert ran == [pytest.approx(20 * weight, abs=weight) for weight in weights]


def test_none_starves_however_small_its_weight() -> None:
    """Between two of its jobs the others run no more than their weights."""
    permits = JobPermits(1, WeightedOrder())
    heavy, light = Backlog(permits, 50), Backlog(permits, 1)
    gaps = Counter[int]()
    for _ in range(1000):
        before = light.ran
        (ran, _) = run([heavy, light], 1)
        gaps[light.ran] += ran if light.ran == before else 0

    assert max(gaps.values()) <= 51


def test_who_had_no_jobs_saves_nothing_up() -> None:
    """After a thousand jobs of the other, both run alike."""
    permits = JobPermits(1, WeightedOrder())
    busy, idle = Backlog(permits), Backlog(permits)
    run([busy], 1000)

    assert run([busy, idle], 100) == [pytest.approx(50, abs=2)] * 2


def test_in_a_strict_order_the_first_that_has_jobs_runs_them() -> None:
    permits = JobPermits(1, StrictOrder())
    high, middle, low = (Backlog(permits) for _ in range(3))

    assert run([high, middle, low], 100) == [100, 0, 0]
    high.share.request(1)
    high.share.found_nothing(look_s=60.0)
    assert run([middle, low], 100) == [100, 0]


@pytest.mark.parametrize("order", [StrictOrder, WeightedOrder])
def test_looks_at_empty_queues_take_a_twentieth_of_the_time(order: Callable[[], PermitOrder]) -> None:
    """Of a permit that another uses in turns of 10 ms; a look takes 1 ms."""
    clock = Clock()
    permits = JobPermits(1, order(), clock)
    empty = [begun(permits.share()) for _ in range(3)]
    busy = Backlog(permits)
    looked_s = 0.0
    while clock.now < 100.0:
        for share in empty:
            while share.request(1):
                clock.now += 0.001
                looked_s += 0.001
                share.found_nothing(look_s=0.001)
        if busy.step():
            clock.now += 0.01

    assert 0.01 <= looked_s / clock.now <= 0.05


def test_who_finds_its_queue_empty_listens_once_nobody_wants_the_permit() -> None:
    permits = JobPermits(1, StrictOrder(), Clock())
    one, other = begun(permits.share()), begun(permits.share())
    assert one.take(1, 0.0) is Turn.TAKE
    assert other.take(1, 0.0) is Turn.NONE
    one.found_nothing(look_s=1.0)

    assert one.take(1, 0.0) is Turn.LISTEN
    assert other.take(1, 0.0) is Turn.TAKE
    assert one.take_for(1) == 0, "the other has the permit"
    other.found_nothing(look_s=1.0)
    assert one.take(1, 0.0) is Turn.TAKE, "it knows of a job"


def test_who_listens_is_told_when_no_permit_is_free(
    eventually: Callable[[Callable[[], object]], None],
) -> None:
    told: list[str] = []
    permits = JobPermits(1, StrictOrder(), Clock())
    one, other = permits.share(), begun(permits.share())
    one.begin(1, in_batches=False, interrupt=lambda: told.append("one"), wake=lambda: None)
    assert one.take(1, 0.0) is Turn.TAKE
    one.found_nothing(look_s=1.0)
    assert one.take(1, 0.0) is Turn.LISTEN
    assert not told

    assert other.take(1, 0.0) is Turn.TAKE
    eventually(lambda: told == ["one"])


def test_permits_that_jobs_do_not_need_go_back() -> None:
    """Whatever became of the jobs; those that weren't used, too."""
    permits = JobPermits(4, WeightedOrder())
    share = begun(permits.share(), at_once=3)
    assert share.request(3) == 3
    share.bind(2, 2)
    assert (share.held, permits.free) == (2, 2)
    share.trim(1)
    assert share.held + permits.free == 4

    share.end()
    assert (share.held, permits.free) == (0, 4)
    share.trim(0)
    assert permits.free == 4, "a job that ends late gives nothing back twice"


def test_a_share_never_has_more_permits_than_its_consumer_runs_jobs() -> None:
    permits = JobPermits(10, WeightedOrder())
    share = begun(permits.share(), at_once=2)
    share.request(2)
    share.bind(8, 8)
    assert (share.held, permits.free) == (2, 8)
    assert [share.may_start(running) for running in range(3)] == [True, True, False]


def test_an_interrupt_ends_the_wait_that_comes_after_it() -> None:
    permits = JobPermits(1, StrictOrder())
    holder, waiter = begun(permits.share()), begun(permits.share())
    assert holder.take(1, 0.0) is Turn.TAKE
    waiter.interrupt()

    assert waiter.take(1, 3600.0) is Turn.NONE
