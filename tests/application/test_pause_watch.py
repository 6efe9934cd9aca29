"""The thread that looks for pauses: whom it tells what, where looks overlap and where the store is away."""

import logging
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from mindtrace.jobs import Orchestrator
from mindtrace.jobs.application.pausing import watch as watch_module
from mindtrace.jobs.application.pausing.records import Pause
from mindtrace.jobs.application.pausing.watch import PauseWatch
from mindtrace.jobs.domain.errors import BackendUnavailable
from mindtrace.jobs.ports import CoordinationStore, Record
from mindtrace.jobs.ports.signal_safe_event import SignalSafeEvent

LONG_S = 60.0
A_MOMENT_S = 0.1
"""For how long a thread is watched that must not go on."""
HERE, OTHER = "points", "others"


class Member:
    """What a consumer is to the watch: it keeps what it was told."""

    is_idle = True
    limits = ()

    def __init__(self, queue: str = HERE) -> None:
        self.queue = queue
        self.told: list[Pause | None] = []

    def tell(self, pause: Pause | None) -> None:
        self.told.append(pause)

    def release(self) -> None: ...

    def renew(self) -> None: ...


class Answer:
    """An answer of the store that a test holds back."""

    def __init__(self, queues: set[str]) -> None:
        self.keys = {f"{kind}/{queue}" for kind in ("pauses", "cancels") for queue in queues}
        self.is_asked_for = threading.Event()
        self.comes = threading.Event()


class Store:
    """Answers what was true when it was asked; late, or not at all, as a test says."""

    def __init__(self, inner: CoordinationStore) -> None:
        self._inner = inner
        self._held: list[Answer] = []
        self.is_away = False

    def hold(self, *queues: str) -> Answer:
        """Hold back the next answer about exactly these queues."""
        answer = Answer({*queues})
        self._held.append(answer)
        return answer

    def get(self, keys: Sequence[str]) -> dict[str, Record]:
        if self.is_away:
            raise BackendUnavailable("away")
        records = self._inner.get(keys)
        held = next((each for each in self._held if each.keys == {*keys}), None)
        if held is not None:
            self._held.remove(held)
            held.is_asked_for.set()
            held.comes.wait(LONG_S)
        return records


@pytest.fixture
def store(orchestrator: Orchestrator, schema: Any) -> Store:
    orchestrator.register(schema, queue=OTHER)
    return Store(orchestrator.backend.coordination)


@pytest.fixture
def watch(store: Any, monkeypatch: pytest.MonkeyPatch) -> PauseWatch:
    """A watch that looks when it is asked to, and whom no member starts a job without."""
    monkeypatch.setattr(watch_module, "_FIRST_LOOK_S", LONG_S)
    monkeypatch.setattr(watch_module, "_IDLE_LOOK_S", LONG_S)
    return PauseWatch(store, logging.getLogger("test"), is_own=False)


@pytest.fixture
def joined() -> threading.Event:
    """Set once :func:`begin` has begun."""
    return threading.Event()


def begin(watch: PauseWatch, joined: threading.Event) -> Pause | None:
    """Have a consumer begin, and return what it knew of its queue by then."""
    member = Member()
    with watch.watching(member):
        joined.set()
        return member.told[-1]


def test_who_begins_waits_for_a_look_at_its_own_queue(
    watch: PauseWatch, store: Store, orchestrator: Orchestrator, background: Any, joined: threading.Event
) -> None:
    """One that began before says nothing of it, though it ends after a later one has begun."""
    pause = orchestrator.pause(HERE)
    with watch.watching(Member(OTHER)):
        earlier, later = store.hold(OTHER), store.hold(HERE, OTHER)
        looking = background(watch.look)
        earlier.is_asked_for.wait(LONG_S)
        beginning = background(begin, watch, joined)
        later.is_asked_for.wait(LONG_S)
        earlier.comes.set()
        looking.result(LONG_S)
        assert not joined.wait(A_MOMENT_S)
        later.comes.set()
        assert beginning.result(LONG_S) == pause


def test_what_was_seen_long_ago_is_asked_again_though_other_queues_were_seen_just_now(
    watch: PauseWatch, orchestrator: Orchestrator, joined: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(watch_module, "monotonic", lambda: now)
    with watch.watching(Member(OTHER)):
        assert begin(watch, joined) is None
        pause = orchestrator.pause(HERE)
        now += 86_400.0
        watch.look()
        assert begin(watch, joined) == pause


@pytest.mark.parametrize("is_own", [True, False], ids=["own", "borrowed"])
def test_while_the_store_is_away_a_call_without_a_loop_goes_by_what_was_seen(
    store: Store, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch, *, is_own: bool
) -> None:
    """Where the jobs are in the same place, it is told so at once; else it doesn't wait each time."""
    now, asked = [1000.0], list[object]()
    monkeypatch.setattr(watch_module, "monotonic", lambda: now[0])
    watch = PauseWatch(store, logging.getLogger("test"), is_own=is_own)  # type: ignore[arg-type]
    pause = orchestrator.pause(HERE)
    assert (watch.pause_of(HERE), watch.pause_of(OTHER)) == (pause, None)
    store.is_away, get = True, store.get
    monkeypatch.setattr(store, "get", lambda keys: (asked.append(keys), get(keys)))
    now[0] += 1.0
    for queue, seen in ((HERE, pause), (OTHER, None)):
        if is_own:
            with pytest.raises(BackendUnavailable):
                watch.pause_of(queue)
        else:
            assert watch.pause_of(queue) == seen
    assert len(asked) == (2 if is_own else 1)


def test_a_look_that_ends_after_a_newer_one_changes_nothing(
    watch: PauseWatch, store: Store, orchestrator: Orchestrator, background: Any
) -> None:
    member = Member()
    with watch.watching(member):
        older = store.hold(HERE)
        looking = background(watch.look)
        older.is_asked_for.wait(LONG_S)
        pause = orchestrator.pause(HERE)
        watch.look()
        assert member.told[-1] == pause
        older.comes.set()
        looking.result(LONG_S)
        assert member.told[-1] == pause


def test_a_consumer_that_begins_while_the_store_is_away_knows_what_was_seen_last(
    watch: PauseWatch, store: Store, orchestrator: Orchestrator, joined: threading.Event
) -> None:
    pause = orchestrator.pause(HERE)
    assert begin(watch, joined) == pause
    store.is_away = True
    assert begin(watch, joined) == pause


def test_an_interrupt_while_a_consumer_begins_leaves_none_behind(
    watch: PauseWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(watch, "_wait_for_look", interrupted)
        with pytest.raises(KeyboardInterrupt), watch.watching(Member()):
            pass
    assert watch._thread is not None
    assert not watch.goes_on(watch._thread)


def test_a_look_that_is_asked_for_as_the_pause_between_two_ends_is_made(
    watch: PauseWatch,
    orchestrator: Orchestrator,
    monkeypatch: pytest.MonkeyPatch,
    just_missed: type[SignalSafeEvent],
) -> None:
    monkeypatch.setattr(watch_module, "LOOK_S", 0.0)  # so that what was seen just now is old
    monkeypatch.setattr(watch_module, "SignalSafeEvent", just_missed)
    member = Member()
    with watch.watching(member):
        pause = orchestrator.pause(HERE)
        watch.refresh(HERE)
        assert member.told[-1] == pause
        ending = watch._thread
        assert ending is not None
    ending.look_now.set()  # so that the thread sees that it is needed no more
    ending.join(LONG_S)


def test_a_job_is_about_to_start_only_where_its_own_queue_was_seen(
    watch: PauseWatch, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at other queues, just now, doesn't spare the look at this one."""
    monkeypatch.setattr(watch_module, "LOOK_S", LONG_S)
    member = Member()
    with watch.watching(Member(OTHER)):
        watch.look()
        watch._members.append(member)  # as one that began while the store was slow to answer
        pause = orchestrator.pause(HERE)
        watch.refresh(HERE)
        assert member.told == [pause]
        watch._leave(member)
