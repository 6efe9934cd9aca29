"""The context in which an adapter is tried: fresh namespaces, queues, time, threads, properties."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Flaky
from hypothesis.strategies import SearchStrategy

from ..domain import Queue, QueueKind
from ..ports import Capabilities, ConsumerBackend, Delivery, OrchestratorBackend
from .check_queue import QueueUnderTest
from .harness import Harness
from .held_lease import HeldLease
from .modes import ONE_AT_A_TIME, Mode
from .profiles import Profile

ValueT = TypeVar("ValueT")

_FEWER = 5
"""By how much fewer examples a property has where it runs once more, with many jobs at once."""
_STEP_S = 0.02
_LONGER = (1, 8, 64)
"""The factors by which a lease is lengthened while it proves too short for this machine."""

_names = itertools.count(1)
_run = uuid4().hex[:12]
"""Tells this process from all others that share the broker, also from those of other machines."""


@dataclass(slots=True)
class CheckContext:
    """One adapter, tested under one profile. Every check gets one."""

    harness: Harness
    profile: Profile
    seed: int | None = None
    examples: int = 0
    """How many examples of properties were run so far; of one that failed, up to the first that did."""
    failed: bool = False
    """Whether the check that runs has found an example that fails."""
    missing_hooks: set[str] = field(default_factory=set)
    """The hooks that the harness lacks, and the check that runs would have used."""
    mode: Mode = ONE_AT_A_TIME
    """How the application's consumers run the jobs of the check that runs."""
    _last_failure: tuple[Exception, Sequence[str]] | None = None
    """What the last example that failed raised, and its steps."""
    _capabilities: list[Capabilities] = field(default_factory=list)

    @property
    def capabilities(self) -> Capabilities:
        """What the adapter declares."""
        if not self._capabilities:
            with self.namespace() as namespace, self.harness.make(namespace) as backend:
                self._capabilities.append(backend.capabilities)
        return self._capabilities[0]

    # -- namespaces and queues --------------------------------------------------------------------

    @contextmanager
    def namespace(self) -> Iterator[str]:
        """A name that no other check uses; destroyed in the end."""
        name = f"contract-{_run}-{next(_names)}"
        try:
            yield name
        finally:
            self.harness.destroy(name)

    @contextmanager
    def backends(self, count: int) -> Iterator[list[OrchestratorBackend]]:
        """Several clients of one fresh namespace."""
        with self.namespace() as namespace, ExitStack() as stack:
            yield [stack.enter_context(self.harness.make(namespace)) for _ in range(count)]

    @contextmanager
    def queues(self, count: int) -> Iterator[list[QueueUnderTest]]:
        """Several fresh queues of a fresh client, so that their delays and leases pass at the same time."""
        with self.backends(1) as (backend,):
            yield [self.queue_on(backend, name=f"jobs-{number}") for number in range(count)]

    @contextmanager
    def queue(self, kind: QueueKind = QueueKind.FIFO, *, name: str = "jobs") -> Iterator[QueueUnderTest]:
        """A fresh queue of a fresh client in a fresh namespace."""
        with self.backends(1) as (backend,):
            yield self.queue_on(backend, kind, name=name)

    def queue_on(
        self, backend: OrchestratorBackend, kind: QueueKind = QueueKind.FIFO, *, name: str = "jobs"
    ) -> QueueUnderTest:
        """Declare a queue of ``backend``, and return it."""
        backend.declare(Queue(name, kind))
        return QueueUnderTest(self, backend, name)

    @contextmanager
    def client_without_polling(self) -> Iterator[tuple[OrchestratorBackend, OrchestratorBackend] | None]:
        """Two clients of one fresh namespace, of which the second never polls; None if there are none."""
        with self.namespace() as namespace, ExitStack() as stack:
            patient = self.harness.make_without_polling(namespace)
            if patient is None:
                self.missing_hooks.add("make_without_polling")
                yield None
                return
            stack.enter_context(patient)
            yield stack.enter_context(self.harness.make(namespace)), patient

    def cut_reply(self, backend: OrchestratorBackend) -> bool:
        """Lose the reply to the next change that ``backend`` asks for, and return whether the harness can."""
        able = self.harness.cut_reply(backend)
        if not able:
            self.missing_hooks.add("cut_reply")
        return able

    # -- time -------------------------------------------------------------------------------------

    @property
    def lateness_s(self) -> float:
        """How long after its time a due job may come: on a clock that stands still, as declared."""
        slow_s = 0.0 if self.harness.virtual_time else self.harness.timeout_s
        return self.capabilities.delay_resolution_s + slow_s

    def keep_lease(self, attempt: Callable[[HeldLease], None], *, shortest_s: float | None = None) -> None:
        """Make an attempt that holds a lease, and repeat it with a longer one where it came too late to.

        An assertion that fails after the lease may have run out proves nothing about the adapter.
        """
        for factor in _LONGER:
            lease = HeldLease(self.harness, (shortest_s or self.harness.lease_s) * factor)
            try:
                return attempt(lease)
            except AssertionError:
                if not lease.may_be_over:
                    raise
        raise AssertionError(f"this machine was too slow to keep a lease of {lease.seconds:g} s")

    def with_longer_leases(self, attempt: Callable[[float], bool]) -> None:
        """Make an attempt with a lease of so many seconds, and with a longer one if it came too late."""
        for factor in _LONGER:
            if attempt(self.harness.lease_s * factor):
                return
        raise AssertionError(f"this machine was too slow for a lease of {self.harness.lease_s * factor:g} s")

    def pass_time(self, seconds: float) -> None:
        """Let the broker's time and real time pass together, so that threads can act meanwhile."""
        if not self.harness.virtual_time:
            self.harness.advance(seconds)
            return
        while seconds > 0:
            time.sleep(min(_STEP_S, seconds))
            self.harness.advance(min(_STEP_S, seconds))
            seconds -= _STEP_S

    def receive(
        self, consumer: ConsumerBackend, max_jobs: int = 1, *, timeout_s: float | None = None
    ) -> list[Delivery]:
        """Receive what should be there: waits as long as the harness allows a slow broker."""
        wait_s = self.harness.timeout_s if timeout_s is None else timeout_s
        if self.harness.virtual_time and (ready := consumer.receive(max_jobs, 0.0)):
            return ready  # where time stands still, waiting takes a thread
        return self.call_in_time(
            lambda: consumer.receive(max_jobs, wait_s), within_s=wait_s + self.harness.timeout_s
        )

    def call_in_time(self, call: Callable[[], ValueT], *, within_s: float | None = None) -> ValueT:
        """Make a call that may block, while time passes; demand that it returns in time."""
        return self.finish(self.start(call), within_s=within_s)

    def stopwatch(self) -> Callable[[], float]:
        """Start a stopwatch, and return the function that reads it, in seconds.

        Timeouts may pass by the machine's clock while leases pass by a virtual one: the longer time counts.
        """
        began_s, began_virtual_s = time.monotonic(), self.harness.now()
        return lambda: max(time.monotonic() - began_s, self.harness.now() - began_virtual_s)

    def start(self, call: Callable[[], ValueT]) -> "Future[ValueT]":
        """Make a call on a thread of its own, which doesn't outlive the process."""
        future: Future[ValueT] = Future()

        def run() -> None:
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future

    def finish(self, future: "Future[ValueT]", *, within_s: float | None = None) -> ValueT:
        """Return what a started call returned, letting time pass until then."""
        timeout_s = self.harness.timeout_s if within_s is None else within_s
        give_up = time.monotonic() + timeout_s
        while not future.done():
            assert time.monotonic() < give_up, f"a call should have returned within {timeout_s:g} s"
            wait([future], _STEP_S)
            if self.harness.virtual_time and not future.done():
                self.harness.advance(_STEP_S)
        return future.result()

    def failure_of(self, call: Callable[[], object]) -> BaseException | None:
        """Return what a call raises, or None, letting time pass until then."""
        return self.failure(self.start(call))

    def failure(self, future: "Future[Any]") -> BaseException | None:
        """Return what a started call raised, or None, letting time pass until then."""
        try:
            self.finish(future)
        except Exception as error:
            return error
        return None

    def eventually(self, check: Callable[[], None]) -> None:
        """Repeat a check until it holds, or time is up: a broker may need a moment to show what it did."""
        give_up = time.monotonic() + (0 if self.harness.virtual_time else self.harness.timeout_s)
        while True:
            try:
                return check()
            except AssertionError:
                if time.monotonic() >= give_up:
                    raise
            time.sleep(_STEP_S)

    # -- properties -------------------------------------------------------------------------------

    def settings(self, examples: int, **more: Any) -> settings:
        """The Hypothesis settings of this profile."""
        unwanted = {Phase.explain} if self.profile.shrink else {Phase.explain, Phase.shrink}
        return settings(
            max_examples=examples,
            derandomize=self.profile.derandomize and self.seed is None,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            phases=[phase for phase in Phase if phase not in unwanted],
            **more,
        )

    def seeded(self, test: Any) -> Any:
        """Fix the random numbers of a property or a state machine, where a seed was asked for."""
        return test if self.seed is None else seed(self.seed)(test)

    @contextmanager
    def example(self, steps: Sequence[str] = ()) -> Iterator[None]:
        """Count an example, unless one has failed: what comes then repeats it, or makes it smaller.

        Args:
            steps: What the example did by the time that it failed; it may grow.
        """
        self.examples += not self.failed
        try:
            yield
        except Exception as error:
            self.failed = True
            self._last_failure = error, steps
            raise

    @contextmanager
    def repeating(self) -> Iterator[None]:
        """Where an example failed, and didn't when it was repeated, raise that failure with its steps."""
        try:
            yield
        except Flaky as flaky:
            if self._last_failure is None:
                raise
            error, steps = self._last_failure
            error.add_note("\n".join(["It didn't fail again when these steps were repeated:", *steps]))
            raise error from flaky

    def property(self, **strategies: SearchStrategy[Any]) -> Callable[[Callable[..., None]], None]:
        """Run the decorated function at once, as a property of values drawn from ``strategies``."""
        return self._property(self.profile.property_examples, strategies)

    def waited_property(
        self, *, cases: int = 1, **strategies: SearchStrategy[Any]
    ) -> Callable[[Callable[..., None]], None]:
        """As :meth:`property`, of one whose every example lets time pass: try several cases in each.

        Args:
            cases: By how much fewer examples will do, as each tries so many more cases at the same time.
            strategies: What the examples are made of.
        """
        profile = self.profile
        examples = (
            profile.property_examples if self.harness.virtual_time else profile.waited_property_examples
        )
        return self._property(-(-examples // cases), strategies)

    def _property(
        self, examples: int, strategies: dict[str, SearchStrategy[Any]]
    ) -> Callable[[Callable[..., None]], None]:
        if self.mode is not ONE_AT_A_TIME:  # in the other modes the values are the same, and some will do
            examples = max(2, examples // _FEWER)

        def run(body: Callable[..., None]) -> None:
            __tracebackhide__ = True

            def example(**values: Any) -> None:
                __tracebackhide__ = True
                with self.example([f"{name}={value!r}" for name, value in values.items()]):
                    body(**values)

            test = given(**strategies)(example)
            with self.repeating():
                self.seeded(self.settings(examples)(test))()

        return run
