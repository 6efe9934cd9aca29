"""How long a consumer waits for the next job, and how many it takes at once."""

from typing import Any

import pytest

from mindtrace.jobs.application.consuming.prefetch_sizer import PrefetchSizer
from mindtrace.jobs.application.consuming.stop_conditions import Forever, one_poll, while_any
from mindtrace.jobs.domain.errors import BackendUnavailable


def test_forever_never_gives_up() -> None:
    """However often it was waited in vain."""
    patience = Forever(5.0)

    assert [patience(waited) for waited in (None, 5.0, 0.1, 5.0)] == [5.0] * 4


@pytest.mark.parametrize("waits", [[5.0], [1.0, 4.0], [4.999999, 0.000001], [1.0] * 5, [2.0, 7.0]])
def test_one_poll_gives_up_once_a_whole_poll_was_waited(waits: list[float]) -> None:
    """In one piece or in several, as interruptions and rounding cut it."""
    patience = one_poll(5.0)
    next_wait, waited = patience(None), 0.0

    for wait in waits:
        assert next_wait == pytest.approx(5.0 - waited)
        waited += wait
        next_wait = patience(wait)

    assert next_wait is None or next_wait < 1e-9


def test_one_poll_starts_anew_with_every_job() -> None:
    """A job that came resets what was waited before."""
    patience = one_poll(5.0)

    assert [patience(waited) for waited in (None, 3.0, None, 4.0, 1.0)] == [5.0, 2.0, 5.0, 1.0, None]


def test_while_any_looks_before_it_waits() -> None:
    """It takes what is there without waiting, waits only where something waits, and else gives up."""
    waiting = [2, 1, 0]
    patience = while_any(5.0, lambda: waiting.pop(0), counts_lag_s=0.0)

    assert [patience(waited) for waited in (None, 0.0, 5.0, 5.0)] == [0.0, 5.0, 5.0, None]


@pytest.mark.parametrize("make", [Forever, lambda poll_s: while_any(poll_s, lambda: 1, counts_lag_s=0.0)])
def test_a_consumer_that_polls_without_a_pause_spins_on_no_delayed_job(make: Any) -> None:
    """It would ask the broker as fast as it can until the job is due (RCV-1)."""
    assert make(0.0)(0.0) > 0


def test_while_any_takes_a_broker_that_is_away_for_one_that_may_hold_jobs() -> None:
    """Receiving rides the outage out; counting must not end it (CON-1)."""

    def away() -> int:
        raise BackendUnavailable("gone")

    assert while_any(5.0, away, counts_lag_s=0.0)(0.0) == 5.0


def test_while_any_waits_for_jobs_that_no_count_has_yet() -> None:
    """Where a broker moves jobs between its queues, none may come for as long as that takes (CNT-1)."""
    patience = while_any(5.0, lambda: 0, counts_lag_s=1.0)

    assert [patience(waited) for waited in (None, 0.0, 0.75, 0.25)] == [0.0, 1.0, 0.25, None]
    assert [patience(waited) for waited in (None, 0.0)] == [0.0, 1.0], "a job that came begins it anew"


def test_while_any_begins_to_wait_anew_once_the_broker_is_back() -> None:
    """While it was away nothing could come, and nothing is known of what it moves (CNT-1)."""
    answers = iter([0, BackendUnavailable("gone"), 0, 0])

    def count() -> int:
        if isinstance(answer := next(answers), BackendUnavailable):
            raise answer
        return answer

    patience = while_any(5.0, count, counts_lag_s=1.0)

    assert [patience(waited) for waited in (0.5, 0.5, 0.5, 0.5)] == [0.5, 5.0, 0.5, None]


def test_batches_of_short_jobs_grow_to_a_bound() -> None:
    """Doubling from one, so that a first slow job comes alone."""
    sizer = PrefetchSizer()
    sizes = [sizer.size]
    for _ in range(12):
        sizer.record(sizer.size, sizer.size * 1e-6)
        sizes.append(sizer.size)

    assert sizes == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000, 1000]


def test_a_batch_holds_no_more_than_a_moments_work() -> None:
    """Jobs of 10 ms come five at a time, jobs of a second alone."""
    sizer = PrefetchSizer()
    for _ in range(20):
        sizer.record(sizer.size, sizer.size * 0.01)
    assert sizer.size == 5

    sizer.record(5, 5.0)
    assert sizer.size == 1


def test_a_sudden_change_is_believed_at_once() -> None:
    """After one batch that took far longer than the average, the next is small."""
    sizer = PrefetchSizer()
    for _ in range(20):
        sizer.record(sizer.size, 0.0)
    assert sizer.size == 1000

    sizer.record(1000, 1000.0)
    assert sizer.size == 1


def test_a_fixed_size_is_kept() -> None:
    """``prefetch`` is what the user wants, whatever the jobs take."""
    sizer = PrefetchSizer(7)
    sizer.record(7, 100.0)

    assert sizer.size == 7
