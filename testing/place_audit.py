"""Audit a concurrency limit: how many holders surely had a place of a key at the same time."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

from whole_lines import whole_lines

from mindtrace.jobs.domain.errors import JobsError
from mindtrace.jobs.ports import CoordinationStore, Place


class Answer(NamedTuple):
    """What a store did with one place; moments are of its own clock."""

    key: str
    holder: str
    before: float
    """When it was asked."""
    after: float
    """When it had answered; infinity if it has yet to, or isn't known to have."""
    ttl_s: float | None
    """For how many seconds it gave the place; None if the place was left."""


class PlaceLog:
    """A file to which all processes append each place that the store gives them, and each that they leave.

    One write a call in append mode: no kill can tear a line or lose one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def watch(self, store: CoordinationStore) -> None:
        """Have the answers of ``store`` to this process written down, beside two looks at its clock."""
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        take, leave = store.take_places, store.leave_places

        def write(places: Iterable[Place], before: float, after: float, ttl_s: float | None) -> None:
            answers = [Answer(place.key, place.holder, before, after, ttl_s) for place in places]
            os.write(file, "".join(f"{json.dumps(answer)}\n" for answer in answers).encode())

        def now_or_never() -> float:
            try:
                return store.now()
            except JobsError:
                return inf

        def take_places(
            places: Sequence[Place],
            *,
            ttl_s: float,
            waits_s: float | None = None,
            leaving: Sequence[Place] = (),
        ) -> list[bool]:
            before = store.now()
            write(leaving, before, inf, None)
            write(places, before, inf, ttl_s)  # it may be done, and this process killed before it says so
            has = take(places, ttl_s=ttl_s, waits_s=waits_s, leaving=leaving)
            given = [place for place, has_it in zip(places, has, strict=True) if has_it]
            after = now_or_never()
            write(leaving, before, after, None)
            write(given, before, after, ttl_s)
            return has

        def leave_places(places: Sequence[Place]) -> None:
            before = store.now()
            write(places, before, inf, None)  # likewise
            leave(places)
            write(places, before, now_or_never(), None)

        store.take_places = take_places  # type: ignore[method-assign]
        store.leave_places = leave_places  # type: ignore[method-assign]

    def answers(self) -> list[Answer]:
        """All so far."""
        return [Answer(*json.loads(line)) for line in whole_lines(self.path)]

    def most_at_once(self) -> dict[str, int]:
        """Return, by key, how many holders had a place at the same time at most."""
        return most_at_once(self.answers())


def most_at_once(answers: Iterable[Answer]) -> dict[str, int]:
    """Return, by key, the most holders that surely had a place at the same time.

    Surely is from when the answer was there until the place was to end, counted from before the request, or
    until somebody began to leave it.
    """
    by_holder: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for answer in answers:
        by_holder[answer.key, answer.holder].append(answer)
    changes: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for (key, _), each in by_holder.items():
        for began, ended in _held(each):
            changes[key] += [(began, 1), (ended, -1)]
    return {key: _most(each) for key, each in changes.items()}


def _held(answers: Sequence[Answer]) -> list[tuple[float, float]]:
    """Return when one holder surely had its place: spans that don't overlap."""
    over_at: dict[float, float] = {}
    for answer in answers:
        if answer.ttl_s is None:
            over_at[answer.before] = min(answer.after, over_at.get(answer.before, inf))
    spans: list[tuple[float, float]] = []
    # A later request for a shorter time makes a place end sooner, whether it was answered or not.
    ends = [(answer.before, answer.before + answer.ttl_s) for answer in answers if answer.ttl_s is not None]
    for _, _, before, after, ttl_s in sorted(answers, key=lambda answer: answer.after):
        if ttl_s is None:
            continue
        left = (began for began, over in over_at.items() if over >= before)
        ended = min([*(end for began, end in ends if began >= before), *left])
        if after >= ended:
            continue
        if spans and after <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], ended))
        else:
            spans.append((after, ended))
    return spans


def _most(changes: Iterable[tuple[float, int]]) -> int:
    now = most = 0
    for _, change in sorted(changes):  # at the same moment, ends come first
        now += change
        most = max(most, now)
    return most
