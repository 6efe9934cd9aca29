"""Taking one job by hand: at most once, done as soon as it is returned."""

import signal
from typing import Any

import pytest
from pydantic import field_validator

from mindtrace.jobs import JobInput, JobSchema, Limit, LocalClient, Orchestrator
from mindtrace.jobs.domain.errors import BackendUnavailable, QueueNotFound
from mindtrace.jobs.ports import Message


def test_an_empty_queue_gives_none_at_once(orchestrator: Orchestrator) -> None:
    """It never waits."""
    assert orchestrator.receive_message("points") is None


def test_a_job_that_was_returned_is_done(orchestrator: Orchestrator) -> None:
    """Nothing waits or is in flight after it, and it has ended without a result (SET-1)."""
    first, second = (orchestrator.publish("points", {"x": n}) for n in (1, 2))

    job = orchestrator.receive_message("points")

    assert job is not None
    assert (job.id, job.payload.x, job.attempt) == (first, 1, 1)
    counts = orchestrator.counts("points")
    assert (counts.ready, counts.in_flight, counts.dead) == (1, 0, 0)
    assert orchestrator.result("points", first) is None
    assert orchestrator.receive_message("points").id == second


def test_a_body_that_cannot_be_decoded_is_passed_over(
    client: LocalClient, orchestrator: Orchestrator
) -> None:
    """It is dead-lettered with its reason, and the next job is returned (RCV-4)."""
    client.publish("points", [Message("bad", b"\x80\x04.")])
    good = orchestrator.publish("points", {})

    assert orchestrator.receive_message("points").id == good
    (letter,) = orchestrator.dead_letters("points")
    assert (letter.id, letter.reason, letter.body) == ("bad", "malformed", b"\x80\x04.")


def test_an_unknown_queue_is_refused(orchestrator: Orchestrator) -> None:
    """And nothing is created (PUB-3)."""
    for _ in range(2):
        with pytest.raises(QueueNotFound, match="queue 'nowhere'"):
            orchestrator.receive_message("nowhere")


def test_it_leaves_nothing_behind(client: LocalClient, orchestrator: Orchestrator, background: Any) -> None:
    """From however many threads: a few consumers are kept, without a job, until the client closes (CON-2)."""
    orchestrator.publish_batch("points", [{"x": n} for n in range(100)])
    local_queue = client._queue("points")

    jobs = [background(orchestrator.receive_message, "points") for _ in range(100)]

    assert {job.result().payload.x for job in jobs} == set(range(100))
    assert len(local_queue._tables) <= 8
    assert orchestrator.counts("points").in_flight == 0
    client.close()
    assert not local_queue._tables


def test_a_body_whose_validator_breaks_is_passed_over(client: LocalClient) -> None:
    """Whatever a model's own validator raises, the job behind is reached (RCV-4)."""

    class Fussy(JobInput):
        x: int = 0

        @field_validator("x")
        @classmethod
        def look_up(cls, x: int) -> int:
            return {0: 0}[x] if armed else x

    armed = False
    orchestrator = Orchestrator(client)
    orchestrator.register(JobSchema("fussy", Fussy))
    orchestrator.publish_batch("fussy", [{"x": 1}, {"x": 0}])
    armed = True

    job = orchestrator.receive_message("fussy")

    assert job is not None
    assert job.payload.x == 0
    assert [letter.error for letter in orchestrator.dead_letters("fussy")] == ["KeyError: 1"]


# -- the consumer that is kept --------------------------------------------------------------------


@pytest.fixture
def opened(far: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queues that consumers of ``far`` were opened on."""
    opened: list[str] = []
    whole = far.backend.open_consumer

    def open_consumer(queue: str, **settings: Any) -> Any:
        opened.append(queue)
        return whole(queue, **settings)

    monkeypatch.setattr(far.backend, "open_consumer", open_consumer)
    return opened


def test_a_consumer_is_opened_once_for_all_orchestrators_of_a_backend(
    far: Orchestrator, opened: list[str], schema: Any
) -> None:
    """To open one may take a connection."""
    far.publish_batch("points", [{"x": n} for n in range(4)])
    other = Orchestrator(far.backend)
    other.register(schema)

    assert [each.receive_message("points").payload.x for each in (far, other, far, other)] == [0, 1, 2, 3]
    assert far.receive_message("points") is None
    assert opened == ["points"]


def test_of_many_queues_those_used_last_are_kept(far: Orchestrator, opened: list[str]) -> None:
    """So that connections don't add up."""
    names = [far.register(JobSchema(f"queue-{n}", JobInput)) for n in range(10)]
    for name in names:
        far.receive_message(name)

    far.receive_message(names[-1])
    far.receive_message(names[0])

    assert opened == [*names, names[0]]
    kept = [queue for queue in names if far.backend._queue(queue)._tables]
    assert kept == [names[0], *names[3:]]


def test_deleting_a_queue_closes_it(far: Orchestrator, opened: list[str], schema: Any) -> None:
    """And a queue of that name that is registered anew gets a new one (ADM-3)."""
    far.receive_message("points")
    local_queue = far.backend._queue("points")
    far.delete_queue("points")
    assert not local_queue._tables

    far.register(schema)
    job_id = far.publish("points", {})
    assert far.receive_message("points").id == job_id
    assert opened == ["points"] * 2


def test_an_outage_leaves_it_open_and_another_error_closes_it(
    far: Orchestrator, line: Any, opened: list[str]
) -> None:
    """It reconnects by itself; to close it may take as long as the call that failed (CON-1)."""
    far.receive_message("points")
    line.breaks["receive"] = 1
    with pytest.raises(BackendUnavailable):
        far.receive_message("points")
    assert far.receive_message("points") is None
    assert opened == ["points"]

    line.before["receive"] = interrupted
    with pytest.raises(KeyboardInterrupt):
        far.receive_message("points")
    del line.before["receive"]
    assert far.receive_message("points") is None
    assert opened == ["points"] * 2


def interrupted() -> None:
    raise KeyboardInterrupt


def test_a_job_whose_ack_came_too_late_is_not_returned(far: Orchestrator, line: Any, clock: Any) -> None:
    """It is ready again, and whoever takes it next has it alone (LSE-4)."""
    job_id = far.publish("points", {})
    line.before["settle"] = lambda: line.calls["settle"] or clock.advance(60)

    job = far.receive_message("points")

    assert (job.id, line.calls["settle"]) == (job_id, 2)
    assert far.receive_message("points") is None


def test_a_forked_process_opens_its_own(far: Orchestrator, opened: list[str], monkeypatch: Any) -> None:
    """Those that it inherits are its parent's."""
    far.receive_message("points")
    monkeypatch.setattr("os.getpid", lambda: 1)
    far.receive_message("points")
    far.receive_message("points")

    assert opened == ["points"] * 2


@pytest.mark.parametrize("raised", [SystemExit, GeneratorExit, KeyError])
def test_a_validator_that_raises_anything_makes_a_malformed_body(
    client: LocalClient, raised: type[BaseException]
) -> None:
    """But KeyboardInterrupt may be the caller's own: then the job is ready again (RCV-4, SET-4)."""
    error: list[type[BaseException]] = []

    class Fussy(JobInput):
        x: int = 0

        @field_validator("x")
        @classmethod
        def look_up(cls, x: int) -> int:
            if error:
                raise error[0]
            return x

    orchestrator = Orchestrator(client)
    orchestrator.register(JobSchema("fussy", Fussy))
    orchestrator.publish("fussy", {"x": 1})
    error[:] = [KeyboardInterrupt]
    with pytest.raises(KeyboardInterrupt):
        orchestrator.receive_message("fussy")
    assert orchestrator.counts("fussy").ready == 1

    error[:] = [raised]
    assert orchestrator.receive_message("fussy") is None
    assert [letter.reason for letter in orchestrator.dead_letters("fussy")] == ["malformed"]


@pytest.mark.parametrize("limit", [None, Limit(1, by="x")])
def test_what_a_signal_handler_raises_while_a_body_is_read_is_the_callers(
    client: LocalClient, limit: Limit | None
) -> None:
    """It may be a timeout of the program's; the job is ready again, and no dead letter (RCV-4, SET-4)."""
    is_armed = False

    class Slow(JobInput):
        x: int = 0

        @field_validator("x")
        @classmethod
        def look_up(cls, x: int) -> int:
            if is_armed:
                signal.raise_signal(signal.SIGUSR1)
            return x

    def on_signal(*_: object) -> None:
        nonlocal is_armed
        is_armed = False  # so that who reads the body again finds it sound
        raise TimeoutError

    orchestrator = Orchestrator(client)
    orchestrator.register(JobSchema("slow", Slow, concurrency_limit=limit))
    orchestrator.publish("slow", {"x": 1})
    before = signal.signal(signal.SIGUSR1, on_signal)
    is_armed = True
    try:
        with pytest.raises(TimeoutError):
            orchestrator.receive_message("slow")
    finally:
        signal.signal(signal.SIGUSR1, before)
    job = orchestrator.receive_message("slow")
    assert job is not None
    assert (job.attempt, orchestrator.counts("slow").dead) == (1, 0)
