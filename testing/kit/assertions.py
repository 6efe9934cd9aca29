"""What assertions of a kit compare, and what they say."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from ..domain import Job
from ..ports import DeadLetter
from .history import Published

_ROUNDED_S = 0.001
"""How much a delay that was computed from two dates may be off."""

JobOf = Callable[[str, bytes], Job[Any]]
"""Reads a job of a queue from its body."""


def match_published(
    published: Sequence[Published],
    queue: str,
    job_of: JobOf,
    payload: BaseModel | None,
    options: Mapping[str, float | None],
    fields: Mapping[str, object],
) -> Job[Any]:
    """Return a published job that fits, and that no earlier call returned; else raise."""
    __tracebackhide__ = True
    wanted = {name: value for name, value in options.items() if value is not None}
    for each in published:
        if each.queue != queue:
            continue
        job = job_of(queue, each.message.body)
        _check_fields(job, fields)
        if not each.is_asserted and _fits(each, job, payload, wanted, fields):
            each.is_asserted = True
            return job
    asked = [] if payload is None else [repr(payload)]
    asked += [f"{name}={value!r}" for name, value in {**fields, **wanted}.items()]
    conditions = f" with {', '.join(asked)}" if asked else ""
    no = "no other job" if any(each.is_asserted and each.queue == queue for each in published) else "no job"
    raise AssertionError(f"{no} was published to queue {queue}{conditions}; {_list(published, job_of)}")


def nothing_else(published: Iterable[Published], job_of: JobOf) -> None:
    """Raise if there are jobs for which no test has asked."""
    __tracebackhide__ = True
    if others := [each for each in published if not each.is_asserted]:
        raise AssertionError(f"other jobs were published; {_list(others, job_of)}")


def dead_letter_of(
    queue: str, letters: Sequence[DeadLetter], reason: str | None, error: str | None, job_id: str | None
) -> DeadLetter:
    """Return the first dead letter that fits; else raise."""
    __tracebackhide__ = True
    for letter in letters:
        if reason in (None, letter.reason) and job_id in (None, letter.id) and (error or "") in letter.error:
            return letter
    named = {"reason": reason, "error": error, "job_id": job_id}
    asked = ", ".join(f"{name}={value!r}" for name, value in named.items() if value is not None)
    conditions = f" with {asked}" if asked else ""
    there = "".join(f"\n  {_shown(each)}" for each in letters)
    listed = f"there are:{there}" if there else "none is dead there"
    raise AssertionError(f"no job of queue {queue} is dead{conditions}; {listed}")


def none_dead(dead: Sequence[tuple[str, DeadLetter]]) -> None:
    """Raise if there are dead jobs."""
    __tracebackhide__ = True
    if dead:
        listed = "".join(f"\n  {queue}  {_shown(letter)}" for queue, letter in dead)
        raise AssertionError(
            f"jobs are dead of which the test didn't ask, with assert_dead() or for the result:{listed}"
        )


def _shown(letter: DeadLetter) -> str:
    return f"{letter.id}  reason={str(letter.reason)!r} error={letter.error!r} attempt={letter.attempt}"


def _fits(
    each: Published,
    job: Job[Any],
    payload: BaseModel | None,
    wanted: Mapping[str, float],
    fields: Mapping[str, object],
) -> bool:
    if payload is not None and job.payload != payload:
        return False
    if abs(wanted.get("delay_s", each.message.delay_s) - each.message.delay_s) > _ROUNDED_S:
        return False
    if wanted.get("priority", job.priority) != job.priority:
        return False
    return all(getattr(job.payload, name) == value for name, value in fields.items())


def _check_fields(job: Job[Any], fields: Iterable[str]) -> None:
    """Refuse names that no payload has: a test with a misspelling would else fail for the wrong reason."""
    for name in fields:
        if not hasattr(job.payload, name):
            raise AssertionError(f"{type(job.payload).__name__} has no field {name!r}: {job.payload!r}")


def _list(published: Iterable[Published], job_of: JobOf) -> str:
    lines = []
    for each in published:
        job = job_of(each.queue, each.message.body)
        delay = f" delay_s={each.message.delay_s:g}" if each.message.delay_s else ""
        priority = f" priority={job.priority}" if job.priority else ""
        asserted = "  (asserted before)" if each.is_asserted else ""
        lines.append(
            f"\n  {each.queue}  {job.payload!r}{delay}{priority}, at {each.after_s:+.3f} s{asserted}"
        )
    return f"there are:{''.join(lines)}" if lines else "nothing was published"
