"""A soak judges what a process holds by one rule, and tells growth from warming up."""

import os

import pytest

from soak.resource_usage import ALLOWED, ResourceUsage, UsageTrend


def trend(*rss_mib: float) -> UsageTrend:
    return UsageTrend.of([ResourceUsage(each, 3, 10) for each in rss_mib])


def test_a_process_that_warms_up_and_then_holds_the_same_has_not_grown() -> None:
    assert not trend(10, 20, 40, 40, 41, 40, 40, 41).grown


def test_a_process_that_holds_more_and_more_has_grown() -> None:
    assert trend(10, 20, 30, 40, 50, 60, 70, 80).grown == ["rss_mib"]


def test_one_high_sample_is_no_growth() -> None:
    assert not UsageTrend.of([ResourceUsage(40, 3, 10)] * 15 + [ResourceUsage(90, 30, 100)]).grown


def test_each_thing_may_grow_by_what_is_allowed_and_no_more() -> None:
    start = ResourceUsage(40, 3, 10)
    allowed = ResourceUsage(*(before + more for before, more in zip(start, ALLOWED, strict=True)))
    assert not UsageTrend(start, allowed).grown
    more = ResourceUsage(*(each + 1 for each in allowed))
    assert UsageTrend(start, more).grown == ["rss_mib", "threads", "descriptors"]


def test_a_sample_is_what_the_process_holds_now() -> None:
    before = ResourceUsage.of(os.getpid())
    descriptor = os.dup(0)
    try:
        after = ResourceUsage.of(os.getpid())
    finally:
        os.close(descriptor)
    assert after.descriptors == before.descriptors + 1
    assert after.threads >= 1
    assert after.rss_mib > 1


def test_too_few_samples_tell_nothing() -> None:
    with pytest.raises(ValueError, match="3 samples"):
        trend(1, 2, 3)
