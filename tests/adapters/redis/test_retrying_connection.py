"""What the connection makes of the driver's errors, and how long it tries."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from redis import exceptions as driver
from redis.sentinel import MasterNotFoundError

from mindtrace.jobs.adapters.redis.errors import RefusedByServer, ServerUnreachable
from mindtrace.jobs.adapters.redis.scripts import DELETE_RECORD
from mindtrace.jobs.adapters.redis.transport.commands import Command
from mindtrace.jobs.adapters.redis.transport.connections import ConnectionBroke
from mindtrace.jobs.adapters.redis.transport.retrying_connection import RetryingConnection
from mindtrace.jobs.domain.errors import AccessDenied, BackendUnavailable, Closed

STREAMS = [("wake", "0-0")]


class Answers:
    """Connections that answer as they are told: the answer or the error of each call."""

    def __init__(self, *answers: Any) -> None:
        self.on_connect: Callable[..., None] = lambda _execute: None
        self.dropped = 0
        self._answers = list(answers)

    def execute(self, *_commands: Command) -> list[Any]:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [answer]

    def execute_parsed(self, *command: Any) -> Any:
        return self.execute(command)[0]

    def drop_idle(self) -> None:
        self.dropped += 1

    def close(self) -> None: ...


def connection(commands: Answers, waits: Answers | None = None, **options: Any) -> RetryingConnection:
    settings: dict[str, Any] = {"owner": "client", "retry_timeout_s": 60.0} | options
    logger = logging.getLogger(__name__)
    return RetryingConnection("here", commands, waits or Answers(), logger=logger, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionBroke("cut"),
        driver.ConnectionError("refused"),
        driver.BusyLoadingError("loading"),
        driver.ReadOnlyError("a replica"),
        driver.ResponseError("NOREPLICAS not enough"),
        driver.ResponseError("BUSY running a script"),
        OSError("no route"),
    ],
    ids=str,
)
def test_what_passes_is_tried_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    redis = connection(Answers(error, error, b"1"))

    assert redis.run(DELETE_RECORD, ["records"], []) == b"1"
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2, "once when the outage begins, once when it ends"


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [
        (driver.ResponseError("NOREPLICAS few"), "Redis refuses commands", "min-replicas-to-write"),
        (driver.ResponseError("MISCONF no disk"), "Redis refuses commands", "is its disk full?"),
        (driver.ResponseError("BUSY running a script"), "Redis refuses commands", "a script runs"),
        (MasterNotFoundError("No master found"), "no Redis answers", "another that they elect"),
        (driver.ConnectionError("refused"), "no Redis answers", "is it running"),
    ],
    ids=str,
)
def test_who_gives_up_says_what_is_the_matter(error: Exception, what: str, fix: str) -> None:
    """A server that answers isn't said to be down, nor Sentinels that are electing."""
    message = str(connection(Answers()).unavailable(ServerUnreachable(error, may_have_run=False)))

    assert message.startswith(f"{what} at here")
    assert fix in message


def test_what_only_reads_ends_no_refusal_of_writes(caplog: pytest.LogCaptureFixture) -> None:
    """A server that takes no writes answers reads all the while; nobody could extend a lease."""
    redis = connection(Answers(driver.ReadOnlyError("a replica"), b"PONG", b"PONG", b"1"))

    assert redis.command("PING") == redis.command("PING") == b"PONG"
    assert "is back" not in caplog.text
    redis.run(DELETE_RECORD, ["records"], [])
    assert "is back" in caplog.text


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (driver.ResponseError("ERR no such command"), RefusedByServer),
        (driver.NoPermissionError("NOPERM"), AccessDenied),
        (driver.AuthenticationError("WRONGPASS"), AccessDenied),
        (driver.ResponseError("NOAUTH"), AccessDenied),
        (driver.ResponseError("ACL failure in script: User x has no permissions"), AccessDenied),
    ],
    ids=str,
)
def test_what_does_not_pass_is_raised_at_once(error: Exception, raised: type[Exception]) -> None:
    with pytest.raises(raised):
        connection(Answers(error)).command("PING")


@pytest.mark.parametrize(
    ("error", "may_have_run"), [(driver.ConnectionError("refused"), False), (ConnectionBroke("cut"), True)]
)
def test_an_outage_says_whether_the_command_may_have_run(error: Exception, may_have_run: bool) -> None:
    redis = connection(Answers(error), retry_timeout_s=0.0)
    with pytest.raises(ServerUnreachable) as out:
        redis.command("PING")
    assert out.value.may_have_run is may_have_run
    with pytest.raises(BackendUnavailable, match="no Redis answers at here") as told, redis.outages():
        raise out.value
    assert ("It may have done what it was asked last" in str(told.value)) is may_have_run


def test_a_refusal_says_whether_an_earlier_try_may_have_run() -> None:
    redis = connection(Answers(ConnectionBroke("cut"), driver.ResponseError("OOM")))
    with pytest.raises(RefusedByServer) as refused:
        redis.command("PING")
    assert refused.value.may_have_run


@pytest.mark.parametrize("text", ["NOQUEUE", "NONEXT 1,3"])
def test_a_missing_queue_is_declared_again_once(text: str) -> None:
    missing = driver.ResponseError(text)
    redis, redeclared = connection(Answers(missing, missing)), list[bool]()
    redis.redeclare = lambda: redeclared.append(True)

    with pytest.raises(RefusedByServer, match=text):
        redis.command("GET", "x")
    assert redeclared == [True]


def test_after_the_deadline_of_closing_nothing_is_sent() -> None:
    redis = connection(Answers(b"PONG"), retry_timeout_s=0.0)
    redis.start_closing()
    with pytest.raises(ServerUnreachable, match="no answer came to the calls before this one"):
        redis.command("PING")


def test_a_closed_connection_says_whose_it_was() -> None:
    redis = connection(Answers(b"PONG"))
    redis.close()
    with pytest.raises(Closed, match="this client is closed"):
        redis.command("PING")


@pytest.mark.parametrize(
    "error",
    [
        ConnectionBroke("cut"),
        driver.TimeoutError("late"),
        driver.ResponseError("ERR"),
        driver.InvalidResponse("?"),
    ],
    ids=str,
)
def test_a_wait_that_fails_has_seen_nothing(error: Exception) -> None:
    """The call that follows finds out what is the matter."""
    assert connection(Answers(), Answers(error)).wait(STREAMS, 0.01) == ({"wake": "0-0"}, None)


def test_records_stay_once_a_request_may_come_late() -> None:
    commands = Answers(b"PONG", 1, ConnectionBroke("cut"), b"PONG")
    redis = connection(commands)
    redis.command("PING")
    redis.unlink_unless_late("last")
    redis.command("PING")
    redis.unlink_unless_late("last")  # there would be no answer
