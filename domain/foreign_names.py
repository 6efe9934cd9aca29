"""Names of other libraries, and misspelt ones of this: what says what they are called here."""

import sys
import warnings
from collections.abc import Iterator
from typing import NoReturn

from .limits import Limit, Rate
from .unique import Unique
from .wording import closest

_OPTIONS = (
    "schema",
    "queue_type",
    "retry",
    "concurrency",
    "loop_factory",
    "schedule",
    "timeout_s",
    "kill_after_s",
    "middleware",
    "batch_size",
    "batch_wait_s",
)
_ALIKE = 0.8
"""How alike an attribute and an option are, of 1, where the option was probably meant."""

_TIME_LIMIT = "write timeout_s = …, in seconds"
_RETRY = "write retry = RetryPolicy(max_attempts=…)"
_RETRY_ON = "write retry = RetryPolicy(retry_on=…), or dont_retry_on=…"
_DELAYS = "write retry = RetryPolicy(delays_s=…)"
_EXPIRY = "it belongs to the schema or to the publish, as in JobSchema(…, expires_s=10)"
_QUEUE = "a queue has the name of its schema; for another, pass it to the constructor, as in {cls}(queue=…)"
_CONNECT = "pass it to connect(…), or to the worker"
_JOB = "a publisher says it, as in publish(…, priority=5, delay_s=60)"
_SCHEMA = "it belongs to the schema, as in JobSchema(…)"
_ON_DEAD = "it belongs to the schema, as in JobSchema(…, on_dead=…)"
_BATCH = "derive the class from BatchConsumer, and define run_batch"
_CONCURRENCY = "write concurrency = …"
_FOREIGN_OPTIONS = {
    "timeout": _TIME_LIMIT,
    "time_limit": _TIME_LIMIT,
    "soft_time_limit": _TIME_LIMIT,
    "hard_time_limit": "write kill_after_s = …, in seconds after the time limit",
    "job_timeout": _TIME_LIMIT,
    "max_attempts": _RETRY,
    "max_retries": _RETRY,
    "max_tries": _RETRY,
    "retries": _RETRY,
    "retry_policy": _RETRY,
    "retry_delay": _DELAYS,
    "retry_backoff": _RETRY,
    "default_retry_delay": _DELAYS,
    "autoretry_for": _RETRY_ON,
    "dont_autoretry_for": _RETRY_ON,
    "throws": _RETRY_ON,
    "retry_on": _RETRY_ON,
    "dont_retry_on": _RETRY_ON,
    "delays_s": _DELAYS,
    "expires": _EXPIRY,
    "expires_s": _EXPIRY,
    "on_expired": _SCHEMA,
    "on_dead": _ON_DEAD,
    "queue": _QUEUE,
    "lease_s": _CONNECT,
    "prefetch": _CONNECT,
    "prefetch_count": _CONNECT,
    "poll_timeout_s": _CONNECT,
    "priority": _JOB,
    "delay_s": _JOB,
    "input": _SCHEMA,
    "output": _SCHEMA,
    "input_schema": _SCHEMA,
    "output_schema": _SCHEMA,
    "unique": _SCHEMA,
    "rate": _SCHEMA,
    "rate_limit": "write JobSchema(…, rate=Rate(5, per_s=1))",
    "concurrency_limit": _SCHEMA,
    "result_ttl": _SCHEMA,
    "result_ttl_s": _SCHEMA,
    "dead_ttl_s": _SCHEMA,
    "failure_ttl": "write JobSchema(…, dead_ttl_s=…), in seconds",
    "max_concurrency": _CONCURRENCY,
    "num_workers": _CONCURRENCY,
    "workers": _CONCURRENCY,
    "threads": _CONCURRENCY,
    "cron": 'write schedule = Cron("0 3 * * *")',
    "batch_size": _BATCH,
    "batch_wait_s": _BATCH,
    "acks_late": "a job is acked once its handler has ended, on every backend",
}
"""Class attributes that mean something elsewhere, here or in other libraries, and what to do instead."""

_HOOKS = ("on_start", "on_stop")
"""Methods that a consumer may have: they are called before its first job and after its last."""

_PUBLISHING = (
    "apply_async",
    "defer",
    "defer_async",
    "delay",
    "enqueue",
    "enqueue_job",
    "kiq",
    "send",
    "send_task",
    "send_with_options",
    "submit",
)
"""How other libraries publish a job."""


def foreign_call(owner: str, name: str) -> str | None:
    """Say what to call in place of ``owner.name``, if other libraries publish jobs by a call of this name."""
    if name not in _PUBLISHING:
        return None
    return (
        f"{owner} has no {name!r}: to publish a job, call orchestrator.publish(schema, payload), and to have "
        "it wait first, add delay_s=60"
    )


class _Elsewhere:
    """An attribute that neither the class nor its instances have, and that says what to call."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise AttributeError(foreign_call(owner.__name__, self._name))


class ForeignCalls:
    """Answers the calls by which other libraries publish a job."""


for _name in _PUBLISHING:
    setattr(ForeignCalls, _name, _Elsewhere(_name))


class ForeignOptions(ForeignCalls):
    """Warns of attributes in the body of a subclass that look like options, and that nobody reads."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Warn where the class is defined."""
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("mindtrace.jobs."):  # which say what options there are
            return
        for name, remedy in _ignored(cls):
            warnings.warn(
                f"{cls.__name__}.{name} has no effect: {remedy}. If the attribute is your own, rename it",
                stacklevel=_frames_to(cls.__module__),
            )


def _ignored(cls: type) -> Iterator[tuple[str, str]]:
    for name, value in vars(cls).items():
        if name.startswith("_"):
            continue
        if name != "on_dead" and (callable(value) or hasattr(value, "__get__")):
            if (hook := _misspelt_hook(cls, name)) is not None:
                yield name, f"{hook} was probably meant"
            continue
        if any(name in vars(base) for base in cls.__mro__[1:]):  # an option, or something of the user's
            continue
        if isinstance(value, Limit | Rate | Unique):  # an error once the class is used
            continue
        if (remedy := _FOREIGN_OPTIONS.get(name)) is not None:
            yield name, remedy.format(cls=cls.__name__)
        elif (meant := closest(name, _OPTIONS, alike=_ALIKE)) is not None:
            yield name, f"{meant} was probably meant"


def _misspelt_hook(cls: type, name: str) -> str | None:
    if not name.startswith("on_") or any(name in vars(base) for base in cls.__mro__[1:]):
        return None
    return closest(name, _HOOKS, alike=_ALIKE)


def _frames_to(module: str) -> int:
    """Count the frames from the caller up to one of ``module``, in which a class is defined."""
    count, frame = 1, sys._getframe(1)
    while frame.f_globals.get("__name__") != module:
        if frame.f_back is None:
            return 2
        count, frame = count + 1, frame.f_back
    return count
