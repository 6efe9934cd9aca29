"""Group commit: what many threads publish to a queue at the same time shares one confirmed batch.

Who comes while nobody publishes leads: it publishes its own messages at once, in its own thread. Who comes
meanwhile waits. When the leader is done, the first who waits leads the next group: all who came by then. If
the leader was held up by a broker that is away, those who waited for long fail with it (ADR 81).

There is no lock around this state, as a signal handler may publish, too, and would wait for the code that it
interrupted. Each step is one atomic operation on a dict or a deque. Who leads is recorded by identity, so
that after an interrupt between any two steps a ``finally`` knows what is left to do.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from threading import get_ident
from time import monotonic
from types import CodeType, FrameType

from ...domain.errors import (
    AccessDenied,
    BackendUnavailable,
    BrokerUnsuitable,
    Closed,
    JobsError,
    PublishUnknown,
    QueueNotFound,
    UsageError,
)
from ...ports import Message, OrchestratorBackend, PublishOutcome, PublishStatus
from ..failures.raised_errors import own_copy
from ..process.forks import start_anew_in_children

MAX_JOBS = 500
"""The most jobs of a group."""
MAX_BYTES = 4 * 1024 * 1024
"""The most bytes of a group; a job that is larger has a group of its own."""
LONGEST_WAIT_S = 1.0
"""Who has waited for longer when the broker's absence ends a publish isn't to wait as long once more."""
_CONCERNS_ALL = (AccessDenied, BackendUnavailable, BrokerUnsuitable, Closed, QueueNotFound)
"""Errors that a job would have met alone, too. Another may be the fault of one job of the group."""


class _Call:
    """A call that waits: for its outcomes, or to lead."""

    __slots__ = ("_passer", "answer", "is_interrupted", "messages", "since_s", "thread", "woken")

    def __init__(self, messages: Sequence[Message], thread: int) -> None:
        self.messages = messages
        self.thread = thread
        self.since_s = monotonic()
        self.answer: list[PublishOutcome] | BaseException | None = None
        self.woken = threading.Lock()
        """Released when there is an answer, or when this leads."""
        self.woken.acquire()
        self.is_interrupted = False
        """Whether its thread has left without an answer."""
        self._passer: dict[None, int] = {}

    def is_left_to(self, thread: int) -> bool:
        """Whether it was interrupted, and ``thread`` is the one of two that passes its lead on."""
        return self.is_interrupted and self._passer.setdefault(None, thread) == thread

    @property
    def size(self) -> int:
        return sum(len(message.body) for message in self.messages)


_Leader = tuple[int, object]
"""A thread, and what tells one of its calls from another."""


class GroupCommit:
    """Publishes to one queue. Any thread may call; the jobs of each arrive in the order of its calls.

    Args:
        backend: The backend.
        queue: The queue's name.
    """

    def __init__(self, backend: OrchestratorBackend, queue: str) -> None:
        self._backend = backend
        self._queue = queue
        self.start_anew()
        start_anew_in_children(self)

    def start_anew(self) -> None:
        """Forget who leads and who waits: after a fork they are threads of the parent."""
        self._leader: dict[None, _Leader] = {}
        """Who leads, under the one key; empty while nobody does."""
        self._waiting: deque[_Call] = deque()
        """In the order in which they came. Only the leader takes one out."""
        self._followers: set[int] = set()
        """The threads that wait."""
        self._within_wait: set[int] = set()
        """Those of them whose signal handler publishes."""

    def publish(self, messages: Sequence[Message]) -> list[PublishOutcome]:
        """Publish messages, alone or in a group, and return one outcome for each, in the same order.

        Raises:
            JobsError: as of :meth:`OrchestratorBackend.publish`; each caller gets an error of its own.
            UsageError: this thread is publishing to the queue: a signal or log handler interrupted it.
        """
        leader, waiting = self._leader, self._waiting
        me = (get_ident(), messages)
        try:
            if leader.setdefault(None, me) is not me:
                return self._publish_in_group(leader, messages)
            outcomes = self._backend.publish(self._queue, messages)
            if not waiting:
                del leader[None]
                if not waiting:
                    return outcomes
                leader.setdefault(None, me)  # one came meanwhile, and may have seen this one lead
            self._give_up_waiting(leader, me, _outage_in(outcomes))
            self._pass_on(leader, me)
        except BaseException as error:
            try:
                self._give_up_waiting(leader, me, _outage_in(error))
                self._pass_on(leader, me)
            finally:  # again, should an interrupt have come first
                self._pass_on(leader, me)
            raise
        return outcomes

    def _publish_in_group(
        self, leader: dict[None, _Leader], messages: Sequence[Message]
    ) -> list[PublishOutcome]:
        thread, followers = get_ident(), self._followers
        self._refuse_within_itself(leader, thread)
        if thread in followers:  # a signal handler interrupted its wait, and can't wait for the same
            return self._publish_within_wait(thread, messages)
        call = _Call(messages, thread)
        me = (thread, call)
        try:
            followers.add(thread)
            self._waiting.append(call)
            if leader.setdefault(None, me) is not me:  # else who led has left, without seeing this call
                call.woken.acquire()
            answer = self._lead_until_answered(leader, me, call)
        except BaseException:
            call.is_interrupted = True
            raise
        finally:
            try:
                self._resign(leader, call)
            finally:
                self._resign(leader, call)
                followers.discard(thread)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _lead_until_answered(
        self, leader: dict[None, _Leader], me: _Leader, call: _Call
    ) -> list[PublishOutcome] | BaseException:
        while call.answer is None:
            self._give_up_waiting(leader, me, self._lead_group(call))
        return call.answer

    def _publish_within_wait(self, thread: int, messages: Sequence[Message]) -> list[PublishOutcome]:
        self._within_wait.add(thread)
        try:
            return self._backend.publish(self._queue, messages)
        finally:
            self._within_wait.discard(thread)

    def _refuse_within_itself(self, leader: dict[None, _Leader], thread: int) -> None:
        """Refuse a publish within one that this thread leads, or for which it left a wait.

        What interrupts cut off to the last step is cleared away: nothing of it runs any more.
        """
        if thread in self._within_wait:
            if _runs_here(GroupCommit._publish_within_wait.__code__, self):
                raise self._within_itself()
            self._within_wait.discard(thread)
        me = leader.get(None)
        if me is None or me[0] != thread:
            return
        if isinstance(me[1], _Call) and me[1].is_interrupted:  # another is about to take its lead
            return
        if any(_runs_here(code, self, me[1]) for code in _LEADING):
            raise self._within_itself()
        self._pass_on(leader, me)

    def _within_itself(self) -> UsageError:
        return UsageError(
            f"this thread is publishing to queue {self._queue!r} just now, so a signal or log handler that "
            "interrupted it can't: set a flag in the handler, and publish later"
        )

    # -- leading ----------------------------------------------------------------------------------

    def _lead_group(self, leading: _Call) -> BackendUnavailable | None:
        """Publish what waits as one batch, tell each caller what became of its messages; return an outage."""
        group: list[_Call] = []
        try:
            self._gather(leading, group)
            self._commit(group)
            return next(filter(None, (_outage_in(call.answer) for call in group)), None)
        finally:
            try:
                _wake(group, leading)
            finally:  # again, should an interrupt have ended it half-way
                _wake(group, leading)

    def _gather(self, leading: _Call, group: list[_Call]) -> None:
        """Take as many calls as fit into a group, in the order in which they came."""
        if leading.thread == threading.main_thread().ident:  # Ctrl-C's: it leads for itself
            group.append(leading)
            return
        waiting = self._waiting
        jobs = size = 0
        while waiting:
            call = waiting[0]
            if call.answer is None and not call.is_interrupted:
                jobs += len(call.messages)
                size += call.size
                if group and (jobs > MAX_JOBS or size > MAX_BYTES):
                    return
                group.append(call)  # before it is taken out, as an interrupt may come between
            waiting.popleft()

    def _commit(self, group: Sequence[_Call]) -> None:
        answers = publish_together(
            partial(self._backend.publish, self._queue), [call.messages for call in group]
        )
        for call, answer in zip(group, answers, strict=True):
            call.answer = answer

    def _give_up_waiting(
        self, leader: dict[None, _Leader], me: _Leader, outage: BackendUnavailable | None
    ) -> None:
        """If this leads, tell those who waited for long of the outage that its publish has met."""
        _, leading = leader.get(None, (0, None))
        if outage is None or leading is not me[1]:
            return
        told: list[_Call] = []
        try:
            self._end_long_waits(outage, told)
        finally:
            try:
                _wake(told)
            finally:  # again, should an interrupt have ended it half-way
                _wake(told)

    def _end_long_waits(self, outage: BackendUnavailable, told: list[_Call]) -> None:
        waiting, latest_s = self._waiting, monotonic() - LONGEST_WAIT_S
        while waiting and (call := waiting[0]).since_s <= latest_s:
            if call.answer is None and not call.is_interrupted:
                told.append(call)  # before it is taken out, as an interrupt may come between
                call.answer = not_sent(outage)
            waiting.popleft()

    def _pass_on(self, leader: dict[None, _Leader], me: _Leader) -> None:
        """Let the first who waits lead, if any does."""
        waiting = self._waiting
        while leader.get(None) is me:
            if not waiting:
                del leader[None]
                if waiting:  # one came meanwhile, and may have seen this one lead
                    leader.setdefault(None, me)
                continue
            heir = waiting[0]
            if heir.answer is not None or heir.is_interrupted:
                waiting.popleft()
                continue
            me = leader[None] = (heir.thread, heir)
            heir.woken.release()
            if not heir.is_left_to(get_ident()):
                return

    def _resign(self, leader: dict[None, _Leader], call: _Call) -> None:
        """Pass the lead on if ``call`` has it, as its thread is about to leave."""
        me = leader.get(None)
        if me is None or me[1] is not call:
            return
        if not call.is_interrupted or call.is_left_to(call.thread):
            self._pass_on(leader, me)


_LEADING = (GroupCommit.publish.__code__, GroupCommit._publish_in_group.__code__)
"""What a thread is in that leads."""


def _runs_here(code: CodeType, group: GroupCommit, led: object = None) -> bool:
    """Whether a call of this thread is in a method of a group, there for what is ``led``, if anything is."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is code and frame.f_locals.get("self") is group:
            _, what = frame.f_locals.get("me", (0, None))
            if led is None or what is led:
                return True
        frame = frame.f_back
    return False


class GroupCommits(dict[str, GroupCommit]):
    """What publishes to the queues of one backend, for all threads and event loops, by the queue's name.

    Args:
        backend: The backend.
    """

    def __init__(self, backend: OrchestratorBackend) -> None:
        super().__init__()
        self._backend = backend

    def __missing__(self, queue: str) -> GroupCommit:
        return self.setdefault(queue, GroupCommit(self._backend, queue))


def publish_together(
    publish: Callable[[Sequence[Message]], list[PublishOutcome]], callers: Sequence[Sequence[Message]]
) -> Iterator[list[PublishOutcome] | Exception]:
    """Publish the messages of several callers as one batch, and yield what to tell each, in their order.

    If the batch fails by what may be the fault of one caller, nothing was sent, and each is published alone.
    """
    try:
        outcomes = publish([message for messages in callers for message in messages])
    except Exception as error:
        if len(callers) == 1:
            yield error
        elif isinstance(error, JobsError) and not isinstance(error, _CONCERNS_ALL):
            outage: BackendUnavailable | None = None
            for messages in callers:
                if outage is not None:
                    yield not_sent(outage)
                    continue
                (answer,) = publish_together(publish, [messages])
                outage = _outage_in(answer)
                yield answer
        else:
            for _ in callers:
                yield own_copy(error)
        return
    if len(callers) > 1:
        outcomes = list(map(_with_own_error, outcomes))
    remaining = iter(outcomes)
    for messages in callers:
        yield list(islice(remaining, len(messages)))


def _with_own_error(outcome: PublishOutcome) -> PublishOutcome:
    return outcome if outcome.error is None else outcome._replace(error=own_copy(outcome.error))


def not_sent(outage: BackendUnavailable) -> BackendUnavailable:
    """Return the error of a job that waited while another one's publish met ``outage``, and wasn't sent."""
    if isinstance(outage, PublishUnknown):
        cause = outage.__cause__ or outage  # without what it says of the other job
        return BackendUnavailable(f"not sent, as the broker didn't confirm the job before: {cause}")
    return own_copy(outage)


def _outage_in(answer: list[PublishOutcome] | BaseException | None) -> BackendUnavailable | None:
    """Return the outage that a publish has met, if it has."""
    if isinstance(answer, BackendUnavailable):
        return answer
    if isinstance(answer, list):
        for _, status, error, _, _ in answer:
            if status is PublishStatus.UNKNOWN:
                return PublishUnknown(str(error))
            if isinstance(error, BackendUnavailable):
                return error
    return None


def _wake(group: list[_Call], leading: _Call | None = None) -> None:
    """Wake all of a group; those without an answer are told that the leader was interrupted."""
    while group:
        call = group[-1]
        if call.answer is None:
            call.answer = _unknown(call.messages)
        del group[-1]
        if call is not leading:
            call.woken.release()


def _unknown(messages: Sequence[Message]) -> list[PublishOutcome]:
    error = BackendUnavailable("the thread that published this job together with its own was interrupted")
    return [PublishOutcome(message.id, PublishStatus.UNKNOWN, error) for message in messages]
