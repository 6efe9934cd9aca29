"""The life of a job: what holds of the whole table."""

from mindtrace.jobs.domain.dead_reasons import DeadReason
from mindtrace.jobs.domain.lifecycle import LIFE, Count, Event, State

ENDED = {State.DONE, State.EXPIRED, State.REPLACED, State.CANCELLED, State.DEAD, State.REMOVED, State.DELETED}
BY_ADMINISTRATORS = {Event.REDRIVE, Event.DISCARD, Event.DELETE}
BY_TIME = {Event.FORGET}


def test_every_state_is_reached_and_every_event_leads_somewhere() -> None:
    assert {step.state for step in LIFE.values()} == set(State) - {State.NEW}
    assert {event for _, event in LIFE} == {*Event, *DeadReason}


def test_what_has_ended_changes_only_by_an_administrators_call_or_as_its_time_is_over() -> None:
    assert {event for state, event in LIFE if state in ENDED} <= BY_ADMINISTRATORS | BY_TIME


def test_every_live_state_leads_to_an_end() -> None:
    for start in set(State) - ENDED:
        reached, before = {start}, set[State]()
        while reached != before:
            before = set(reached)
            reached |= {step.state for (state, _), step in LIFE.items() if state in before}
        assert State.DONE in reached or start is State.ENDING, start


def test_what_is_to_be_cancelled_never_waits_again() -> None:
    reached = {step.state for (state, _), step in LIFE.items() if state in (State.CANCELLING, State.ENDING)}
    assert not reached & {State.READY, State.DELAYED, State.IN_FLIGHT, State.DEAD}


def test_an_attempt_and_a_crash_are_never_counted_at_once() -> None:
    assert not [event for event, step in LIFE.items() if {Count.ATTEMPT, Count.CRASH} <= set(step.counts)]


def test_only_a_redrive_begins_anew() -> None:
    assert {event for (_, event), step in LIFE.items() if Count.ANEW in step.counts} == {Event.REDRIVE}
