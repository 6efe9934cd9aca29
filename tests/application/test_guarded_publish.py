"""A job and a record, both or neither: in one step, or under a claim where the store is another system."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mindtrace.jobs import (
    Capabilities,
    LocalClient,
    OrchestratorBackend,
    PublishOutcome,
    PublishStatus,
    Queue,
)
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.adapters.local.coordination import LocalCoordinationStore
from mindtrace.jobs.application.broker.guarded_publish import CLAIM_S, claim_of, publish_guarded
from mindtrace.jobs.domain.errors import BackendError, BackendUnavailable, UnsupportedCapability
from mindtrace.jobs.ports import ABSENT, CoordinationStore, Guard, Message, Record
from mindtrace.jobs.ports.coordination import MAX_KEY_CHARS

QUEUE, KEY = "points", "schedules/nightly"
ACCEPTED = PublishStatus.ACCEPTED
Happening = Callable[[], object]


class Died(BaseException):
    """The publisher's process was killed: it does nothing any more."""


class FarStore(LocalCoordinationStore):
    """A store in another system. ``before`` says what happens just before a call reaches it."""

    def __init__(self, client: LocalClient) -> None:
        super().__init__(client._open_namespace())
        self.before: dict[str, Happening] = {}

    def get(self, keys: Sequence[str]) -> dict[str, Record]:
        self._happen("get")
        return super().get(keys)

    def put(self, key: str, value: bytes, **how: Any) -> int | None:
        self._happen("claim" if key.startswith("claims/") else "record")
        return super().put(key, value, **how)

    def delete(self, key: str, **how: Any) -> bool:
        self._happen("unclaim")
        return super().delete(key, **how)

    def _happen(self, call: str) -> None:
        self.before.get(call, lambda: None)()


class Borrower(LocalClient):
    """A broker that can't write records itself. ``instead`` answers its publishes."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__("guarded", clock=clock)
        self.far = FarStore(self)
        self.instead: Callable[[Message], PublishOutcome] | None = None

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, guarded_publish=False)

    @property
    def coordination(self) -> CoordinationStore:
        return self.far

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        if self.instead is not None:
            return [self.instead(message) for message in messages]
        return super().publish(queue, messages)

    def close(self) -> None:
        super().close()
        self.far.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def whole(clock: ManualClock) -> Iterator[LocalClient]:
    """A broker that publishes and writes records in one step."""
    with LocalClient("guarded", clock=clock) as client:
        client.declare(Queue(QUEUE))
        yield client


@pytest.fixture
def borrower(clock: ManualClock, whole: LocalClient) -> Iterator[Borrower]:
    """A client of the same queues and records, which takes two steps."""
    with Borrower(clock) as client:
        yield client


@pytest.fixture
def other(clock: ManualClock, whole: LocalClient) -> Iterator[Borrower]:
    """Another such client."""
    with Borrower(clock) as client:
        yield client


@pytest.fixture(params=["in one step", "under a claim"])
def backend(request: pytest.FixtureRequest, whole: LocalClient, borrower: Borrower) -> LocalClient:
    return whole if request.param == "in one step" else borrower


def publish(
    backend: LocalClient, job_id: str = "a", expected: int = ABSENT, ttl_s: float | None = None
) -> PublishOutcome | None:
    guard = Guard(KEY, expected, job_id.encode(), ttl_s)
    return publish_guarded(backend, QUEUE, Message(job_id, b"{}"), guard)


def records(backend: LocalClient) -> dict[str, bytes]:
    """Everything that the store contains, claims included."""
    return {key: record.value for key, record in backend.coordination.scan("").items()}


def ready(backend: LocalClient) -> int:
    return backend.counts(QUEUE).ready


def away() -> None:
    raise BackendUnavailable("the store is away")


def dies(client: Borrower, before: str) -> Happening:
    """Return what kills the publisher: this call, and all that it would do afterwards."""

    def die() -> None:
        raise Died

    client.far.before[before] = client.far.before["unclaim"] = die
    return die


# -- both ways ------------------------------------------------------------------------------------


def test_the_job_is_published_and_the_record_written(backend: LocalClient) -> None:
    """And nothing else is left in the store (CRD-4)."""
    assert publish(backend) == PublishOutcome("a", ACCEPTED)

    assert ready(backend) == 1
    assert records(backend) == {KEY: b"a"}


def test_another_version_publishes_nothing(backend: LocalClient) -> None:
    """Neither a record where none must be, nor none where one must be, nor an earlier one (CRD-4)."""
    assert publish(backend, expected=7) is None
    assert records(backend) == {}
    publish(backend, "a")
    version = backend.coordination.get([KEY])[KEY].version
    backend.coordination.put(KEY, b"b")

    assert publish(backend, "c") is None
    assert publish(backend, "c", expected=version) is None
    assert ready(backend) == 1
    assert records(backend) == {KEY: b"b"}


def test_the_expected_version_is_replaced_for_its_time(backend: LocalClient, clock: ManualClock) -> None:
    """The record has the guard's value, and ends when the guard says (CRD-3)."""
    publish(backend, "a")
    version = backend.coordination.get([KEY])[KEY].version

    assert publish(backend, "b", expected=version, ttl_s=5.0) == PublishOutcome("b", ACCEPTED)

    assert ready(backend) == 2
    assert records(backend) == {KEY: b"b"}
    clock.advance(5.0)
    assert records(backend) == {}


def test_a_live_id_writes_the_record_too(backend: LocalClient) -> None:
    """The job is there: what the record says is true."""
    backend.publish(QUEUE, [Message("a", b"{}")])

    assert publish(backend) == PublishOutcome("a", PublishStatus.DUPLICATE)
    assert ready(backend) == 1
    assert records(backend) == {KEY: b"a"}


# -- under a claim --------------------------------------------------------------------------------


def test_while_one_publishes_another_is_kept_out(borrower: Borrower, other: Borrower) -> None:
    """Between the job and the record as well; afterwards the record keeps it out."""
    answers: list[PublishOutcome | None] = []
    borrower.far.before["record"] = lambda: answers.append(publish(other, "b"))

    assert publish(borrower, "a") == PublishOutcome("a", ACCEPTED)
    answers.append(publish(other, "b"))

    assert answers == [None, None]
    assert ready(borrower) == 1
    assert records(borrower) == {KEY: b"a"}


@pytest.mark.parametrize(("before", "published"), [("get", 0), ("record", 1)])
def test_after_a_death_in_between_another_publishes(
    borrower: Borrower, other: Borrower, clock: ManualClock, before: str, published: int
) -> None:
    """Once the claim has ended, and not before: at least one job, and two only if the first was published."""
    dies(borrower, before)
    with pytest.raises(Died):
        publish(borrower, "a")
    assert ready(other) == published

    clock.advance(CLAIM_S - 0.001)
    assert publish(other, "b") is None
    clock.advance(0.001)
    assert publish(other, "b") == PublishOutcome("b", ACCEPTED)

    assert ready(other) == published + 1
    assert records(other) == {KEY: b"b"}


def test_whose_claim_ended_before_it_published_publishes_nothing(
    borrower: Borrower, other: Borrower, clock: ManualClock
) -> None:
    """It stood still; another has the claim meanwhile, and is about to publish."""

    def stand_still() -> None:
        clock.advance(CLAIM_S)
        assert other.far.put(claim_of(KEY), b"b", expected=ABSENT, ttl_s=CLAIM_S)

    borrower.far.before["get"] = stand_still

    assert publish(borrower) is None
    assert ready(borrower) == 0
    assert list(records(borrower).values()) == [b"b"]


def test_the_claim_of_another_is_left_alone(borrower: Borrower, other: Borrower, clock: ManualClock) -> None:
    """One that stood still after its publish ends no claim that began since, and overwrites no record."""

    def stand_still() -> None:
        clock.advance(CLAIM_S)
        other.far.before["unclaim"] = away
        publish(other, "b")

    borrower.far.before["record"] = stand_still

    assert publish(borrower, "a") == PublishOutcome("a", ACCEPTED)
    assert ready(borrower) == 2
    found = records(borrower)
    assert found.pop(KEY) == b"b"
    assert list(found.values()) == [b"b"], "the claim"


@pytest.mark.parametrize("call", ["claim", "get"])
def test_a_store_that_is_away_before_the_publish_is_an_error(borrower: Borrower, call: str) -> None:
    """Nothing is published, no claim is left, and asking again publishes."""
    borrower.far.before[call] = away
    with pytest.raises(BackendUnavailable, match="the store is away"):
        publish(borrower)
    assert ready(borrower) == 0
    assert records(borrower) == {}

    del borrower.far.before[call]
    assert publish(borrower) == PublishOutcome("a", ACCEPTED)


def test_a_store_that_is_away_after_the_publish_leaves_it_unknown(borrower: Borrower) -> None:
    """An error would say that nothing was published."""
    borrower.far.before["record"] = away

    outcome = publish(borrower)

    assert outcome is not None
    assert (outcome.id, outcome.status, str(outcome.error)) == (
        "a",
        PublishStatus.UNKNOWN,
        "the store is away",
    )
    assert ready(borrower) == 1
    assert records(borrower) == {}


def test_a_claim_that_cannot_be_given_back_ends_by_itself(borrower: Borrower, clock: ManualClock) -> None:
    """Job and record are there, and the outcome says so."""
    borrower.far.before["unclaim"] = away

    assert publish(borrower) == PublishOutcome("a", ACCEPTED)
    assert records(borrower).pop(KEY) == b"a"
    clock.advance(CLAIM_S)
    assert records(borrower) == {KEY: b"a"}


@pytest.mark.parametrize("status", [PublishStatus.UNKNOWN, PublishStatus.REJECTED])
def test_a_job_that_is_not_known_to_be_published_writes_no_record(
    borrower: Borrower, status: PublishStatus
) -> None:
    """Asking again publishes at once."""
    answer = PublishOutcome("a", status, BackendError("no"))
    borrower.instead = lambda message: answer

    assert publish(borrower) is answer
    assert records(borrower) == {}

    borrower.instead = None
    assert publish(borrower) == PublishOutcome("a", ACCEPTED)


@pytest.mark.parametrize("doubt", ["of the job", "of the record"])
def test_a_doubt_that_is_kept_keeps_all_out_until_the_claim_ends(
    borrower: Borrower, other: Borrower, clock: ManualClock, doubt: str
) -> None:
    """Whoever asks again meanwhile: of a broker that confirms nothing for long there are few copies then."""
    if doubt == "of the job":
        borrower.instead = lambda message: PublishOutcome("a", PublishStatus.UNKNOWN, BackendError("no"))
    else:
        borrower.far.before["record"] = away
    guard = Guard(KEY, ABSENT, b"a")

    def ask(backend: Borrower) -> PublishStatus | None:
        outcome = publish_guarded(backend, QUEUE, Message("a", b"{}"), guard, keeps_doubt=True)
        return None if outcome is None else outcome.status

    assert ask(borrower) is PublishStatus.UNKNOWN
    clock.advance(CLAIM_S - 0.001)
    assert (ask(borrower), ask(other)) == (None, None)
    clock.advance(0.001)
    assert ask(other) in (ACCEPTED, PublishStatus.DUPLICATE)


@pytest.mark.parametrize("status", [ACCEPTED, PublishStatus.REJECTED])
def test_where_there_is_no_doubt_no_claim_is_kept(borrower: Borrower, status: PublishStatus) -> None:
    borrower.instead = lambda message: PublishOutcome("a", status)

    publish_guarded(borrower, QUEUE, Message("a", b"{}"), Guard(KEY, ABSENT, b"a"), keeps_doubt=True)

    assert claim_of(KEY) not in records(borrower)


def test_a_broker_that_is_away_is_an_error_and_leaves_no_claim(borrower: Borrower) -> None:
    def refuse(message: Message) -> PublishOutcome:
        raise BackendUnavailable("the broker is away")

    borrower.instead = refuse

    with pytest.raises(BackendUnavailable, match="the broker is away"):
        publish(borrower)
    assert records(borrower) == {}


def test_a_claim_says_which_job_is_being_published(borrower: Borrower) -> None:
    """So that who runs the job before its record is written can tell."""
    claims: list[bytes] = []
    borrower.far.before["record"] = lambda: claims.append(
        borrower.far.get([claim_of(KEY)])[claim_of(KEY)].value
    )

    publish(borrower, "a")

    assert claims == [b"a"]


def test_the_longest_key_can_be_claimed(borrower: Borrower) -> None:
    key = "k" * MAX_KEY_CHARS

    assert len(claim_of(key)) <= MAX_KEY_CHARS
    assert claim_of(key) != claim_of(key[:-1] + "l")


class Storeless(Borrower):
    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, coordination=False)

    coordination = OrchestratorBackend.coordination


def test_a_backend_without_a_store_is_refused(clock: ManualClock) -> None:
    """With what to do."""
    with Storeless(clock) as backend, pytest.raises(UnsupportedCapability, match=r"amqp://host\?store=redis"):
        publish(backend)
