"""Publishing from event loops: what comes while a batch is under way is the next batch."""

import asyncio
import threading
from asyncio import Future
from collections import deque
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import NamedTuple

from ...domain.errors import BackendUnavailable, JobsError
from ...domain.job import NO_HEADERS
from ...ports import Message
from ..api.orchestrator import Orchestrator
from ..async_calls.bridge import Answer, deliver
from ..async_calls.threads import Threads
from ..failures.raised_errors import own_copy
from ..publishing.group_commit import (
    LONGEST_WAIT_S,
    MAX_BYTES,
    MAX_JOBS,
    not_sent,
    publish_together,
)
from ..publishing.messages import Work, confirmed_id, to_message
from ..publishing.publish_options import PublishOptions
from ..registration.registry import Registration


class _Job(NamedTuple):
    """A job to publish, and who waits for that."""

    future: "Future[str]"
    registration: Registration
    work: Work
    options: PublishOptions
    since_s: float


class AsyncPublisher:
    """Publishes to one queue, in the order in which it is called. Any event loop may call.

    A thread validates and encodes what has come, and publishes it with what other threads publish.

    Args:
        orchestrator: Where it publishes.
        queue: The queue's name.
        threads: Where it works, in one of them at a time.
    """

    def __init__(self, orchestrator: Orchestrator, queue: str, threads: Threads) -> None:
        self._orchestrator = orchestrator
        self._queue = queue
        self._threads = threads
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._is_working = False

    async def publish(self, registration: Registration, work: Work, options: PublishOptions) -> str:
        """Publish one job; as :meth:`Orchestrator.publish`."""
        future: Future[str] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._jobs.append(_Job(future, registration, work, options, monotonic()))
            begins, self._is_working = not self._is_working, True
        if begins:
            try:
                self._threads.submit(self._publish_batch)
            except RuntimeError as error:  # no thread can be started: nobody may wait for one
                with self._lock:
                    jobs, self._jobs = self._jobs, deque()
                    self._is_working = False
                deliver(Answer(job.future, error=own_copy(error)) for job in jobs)
        return await future

    def _publish_batch(self) -> None:
        encoded = self._encode()
        if encoded:
            try:
                answers = self._commit(encoded)
            except BaseException as error:  # nobody may wait for ever
                answers = [Answer(job.future, error=own_copy(error)) for job, _ in encoded]
            deliver([*answers, *self._give_up_waiting([answer.error for answer in answers])])
        with self._lock:
            goes_on = self._is_working = bool(self._jobs)
        if goes_on:  # behind what others have submitted meanwhile
            self._threads.submit(self._publish_batch)

    def _give_up_waiting(self, errors: Iterable[BaseException | None]) -> list[Answer]:
        """Take out the jobs that waited for long, if a publish has met an outage, and say so of each."""
        outage = next((error for error in errors if isinstance(error, BackendUnavailable)), None)
        given_up: list[Answer] = []
        if outage is not None:
            latest_s = monotonic() - LONGEST_WAIT_S
            while self._jobs and self._jobs[0].since_s <= latest_s:
                given_up.append(Answer(self._jobs.popleft().future, error=not_sent(outage)))
        return given_up

    def _encode(self) -> list[tuple[_Job, Message]]:
        """Take jobs, make messages of those that nobody cancelled, and tell those whose job is invalid."""
        encoded: list[tuple[_Job, Message]] = []
        invalid: list[Answer] = []
        max_bytes, clock, size = self._orchestrator.max_body_bytes, self._orchestrator.clock, 0
        while self._jobs and len(encoded) < MAX_JOBS and size < MAX_BYTES:
            job = self._jobs.popleft()
            if job.future.cancelled():
                continue
            _, registration, work, options, _ = job
            try:
                message = to_message(registration, work, options, NO_HEADERS, max_bytes, clock)
            except BaseException as error:  # a validator of the user's model may raise anything
                invalid.append(Answer(job.future, error=error))
            else:
                encoded.append((job, message))
                size += len(message.body)
        deliver(invalid)
        return encoded

    def _commit(self, encoded: Sequence[tuple[_Job, Message]]) -> list[Answer]:
        backend, commit = self._orchestrator.backend, self._orchestrator.group_commits[self._queue]
        outcomes = publish_together(commit.publish, [[message] for _, message in encoded])
        answers = []
        for (job, _), outcome in zip(encoded, outcomes, strict=True):
            if isinstance(outcome, Exception):
                answers.append(Answer(job.future, error=outcome))
                continue
            try:
                answers.append(Answer(job.future, confirmed_id(self._queue, outcome[0], backend)))
            except JobsError as error:
                answers.append(Answer(job.future, error=error))
        return answers
