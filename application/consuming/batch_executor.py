"""The execution of one batch: decode each job, run all at once, and settle each by what is said of it."""

import gc
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from logging import INFO, WARNING
from time import perf_counter
from typing import Any, NamedTuple

from ...domain import Job
from ...domain.batch_outcomes import Dead as DeadOutcome
from ...domain.batch_outcomes import Done
from ...domain.batch_outcomes import Retry as RetryOutcome
from ...domain.dead_reasons import DeadReason
from ...domain.handler_signals import HandlerSignal
from ...domain.job_context import BatchContext, JobContext, running
from ...domain.then import Then
from ...domain.wording import quantity
from ...ports import Delivery, Settlement
from ..failures.handler_errors import describe, try_to_log
from ..process.graceful_stop import asks_to_stop, raised_by_signal
from .batch_size_limit import BatchSizeLimit
from .executor import Executor
from .out_of_memory_errors import is_out_of_memory
from .time_limits import LimitedRun

_OUTCOMES = (BaseException, Done, RetryOutcome, DeadOutcome, Then)


class _Member(NamedTuple):
    """A job of a batch that its handler is to run."""

    delivery: Delivery
    job: Job[Any]
    context: JobContext


class WrongAnswer(Exception):
    """What a handler returned doesn't say what becomes of each of its jobs."""


@dataclass(frozen=True, slots=True)
class BatchExecutor(Executor):
    """Turns batches of deliveries into settlements; its handler takes a tuple of jobs.

    As with :class:`Executor`, no job and no handler can make it raise.
    """

    def execute_batch(self, deliveries: Sequence[Delivery], memory: BatchSizeLimit) -> list[Settlement]:
        """Run deliveries as one batch, and return the settlement of each, in any order.

        Those that can't be decoded are dead by themselves. Where memory runs out, the batch is run in parts.

        Args:
            deliveries: What to run.
            memory: How many to run at once at most; it learns what fits.
        """
        began_s = perf_counter()
        settlements: list[Settlement] = []
        members: list[_Member] = []
        for delivery in deliveries:
            job = self._begin(delivery)
            if isinstance(job, Job):
                members.append(_Member(delivery, job, (job, delivery.receipt, self.consumer)))
            else:
                settlements.append(self._tell(delivery, job, began_s))
        if members:
            settlements += self._run_members(members, memory, began_s)
        return settlements

    def _run_members(
        self, members: list[_Member], memory: BatchSizeLimit, began_s: float
    ) -> list[Settlement]:
        token = running.set(BatchContext([member.context for member in members], self.consumer))
        try:
            if self.observer is not None:
                for member in members:
                    self.observer.started(self.schema.name, member.job)
            settlements = self._run_in_parts(members, memory)
            if self.observer is not None:  # in reverse, so that what was opened last is closed first
                for member, settlement in zip(reversed(members), reversed(settlements), strict=True):
                    running.set(member.context)
                    self._tell(member.delivery, settlement, began_s)
            return settlements
        finally:
            running.reset(token)
            if self.limits.timed_out:
                self.limits.forget(member.delivery.receipt for member in members)

    def _run_in_parts(self, members: list[_Member], memory: BatchSizeLimit) -> list[Settlement]:
        """Run as many at once as fit into memory; return one settlement for each, in order."""
        settlements: list[Settlement] = []
        while len(settlements) < len(members):
            part = members[len(settlements) :][: memory.size]
            settled = self._run_part(part, memory)
            if settled is None:
                gc.collect()  # or what the failed attempt has made would take up memory in the next
            else:
                settlements += settled
        return settlements

    def _run_part(self, part: list[_Member], memory: BatchSizeLimit) -> list[Settlement] | None:
        """Run jobs at once; return one settlement for each, or None if fewer are to be tried."""
        jobs = tuple(member.job for member in part)  # no list, which a handler could reorder
        try:
            outcomes = _outcomes(self._call(part, jobs), jobs)
        except WrongAnswer as error:
            return [self._dead(member.delivery, DeadReason.RESULT, f"{error}") for member in part]
        except BaseException as error:
            if asks_to_stop(error):
                raise
            if len(part) == 1 or not is_out_of_memory(error):
                return self._fail_all(part, error)
            memory.ran_out(len(part))
            self._tell_smaller(len(part), memory.size, error)
            return None
        if memory.fitted(len(part)):
            try_to_log(self.logger, INFO, "trying up to %d jobs at once again", memory.size)
        return [self._settle_one(member, outcome) for member, outcome in zip(part, outcomes, strict=True)]

    def _call(self, part: list[_Member], jobs: tuple[Job[Any], ...]) -> Any:
        """Call the handler; the shortest limit of its jobs is that of all."""
        own = [member.job.timeout_s for member in part if member.job.timeout_s is not None]
        if self.limits.timeout_s is not None and len(own) < len(part):
            own.append(self.limits.timeout_s)
        if not own:
            return self.handler(jobs)
        deliveries, began_s = [member.delivery for member in part], perf_counter()
        work = [(member.delivery, member.job) for member in part]
        interrupt = self._interrupt_of(*(delivery.receipt for delivery in deliveries))
        settle = partial(self._give_up, work, began_s)
        return LimitedRun(self.limits, deliveries, min(own), interrupt, settle).call(self.handler, jobs)

    def _tell_smaller(self, jobs: int, at_once: int, error: BaseException) -> None:
        try_to_log(
            self.logger,
            WARNING,
            "memory ran out with %d jobs at once: trying up to %d from now on: %s",
            jobs,
            at_once,
            describe(error),
        )

    def _fail_all(self, members: list[_Member], error: BaseException) -> list[Settlement]:
        """Return how to settle jobs whose handler raised ``error``, which is being handled."""
        if len(members) == 1 or isinstance(error, HandlerSignal):
            return [self._settle_one(member, error) for member in members]
        ids = ", ".join(member.job.id for member in members)
        try_to_log(self.logger, WARNING, "a batch of %d jobs failed: %s", len(members), ids, traceback=True)
        shown = self.limits.shown(members[0].delivery.receipt, error)
        return [self._retry(member.delivery, member.job, shown, error) for member in members]

    def _settle_one(self, member: _Member, outcome: Any) -> Settlement:
        """Return how to settle a job by its outcome."""
        delivery, job, context = member
        token = running.set(context)  # what is logged is this job's
        returned, traceback = outcome, getattr(outcome, "__traceback__", None)
        try:
            match outcome:
                case BaseException():
                    raise outcome
                case RetryOutcome(delay_s, reason):
                    return self._retry(delivery, job, str(reason), delay_s=delay_s)
                case DeadOutcome(reason):
                    return self._dead(delivery, DeadReason.REJECTED, str(reason))
                case Done(output):
                    outcome = output
                case type() if issubclass(outcome, _OUTCOMES):
                    return self._dead(delivery, DeadReason.RESULT, _class_returned(outcome))
            return self._succeed(delivery, job, outcome)
        except BaseException as error:
            if error is not returned and raised_by_signal(error):  # the job's handler has returned
                raise
            return self._fail(delivery, job, error)
        finally:
            running.reset(token)
            if isinstance(returned, BaseException):  # else it would grow by a frame for each of its jobs
                returned.__traceback__ = traceback


def _outcomes(answer: object, jobs: Sequence[Job[Any]]) -> list[Any]:
    """Return what a handler says of each of its jobs, in their order.

    Raises:
        WrongAnswer: it is neither a sequence of so many outcomes nor a mapping from the ids of the jobs.
    """
    if isinstance(answer, Mapping):
        return _outcomes_by_id(answer, [job.id for job in jobs])
    if not isinstance(answer, Sequence) or isinstance(answer, str | bytes | bytearray):
        raise WrongAnswer(
            f"run_batch returned {_kind(answer)}: return a list with one outcome for each job{_hint(answer)}"
        )
    outcomes = list(answer)
    if len(outcomes) != len(jobs):
        raise WrongAnswer(
            f"run_batch returned {len(outcomes)} outcomes for {len(jobs)} jobs: return one for each, in order"
        )
    return outcomes


def _outcomes_by_id(answer: Mapping[Any, Any], ids: list[str]) -> list[Any]:
    """Return the outcomes of jobs in the order of ``ids``; without dedupe, one may be there twice."""
    found = {id_: answer[id_] for id_ in ids if id_ in answer}
    if len(found) != len(answer) or not found.keys() >= {*ids}:
        raise WrongAnswer(
            f"run_batch returned a dict of {quantity(len(answer), 'key')}, of which {len(found)} are ids of "
            f"its {quantity(len(ids), 'job')}: return a list with one outcome for each job, or a dict with "
            "the id of each job"
        )
    return [found[id_] for id_ in ids]


def _kind(answer: object) -> str:
    return "None" if answer is None else type(answer).__name__


def _hint(answer: object) -> str:
    """Say what the author of a handler probably forgot, if that shows in what it returned."""
    if inspect.isgenerator(answer) or inspect.isasyncgen(answer):
        return "; none of it has run: loop over it in run_batch"
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()  # or Python would warn that it was never awaited
        return "; make it an async def, and await there"
    return ""


def _class_returned(outcome: type) -> str:
    name = outcome.__name__
    return f"run_batch returned the class {name} for this job: return an instance, as in {name}(…)"
