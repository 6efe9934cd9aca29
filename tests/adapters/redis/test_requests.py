"""Requests are numbered, and the one that was never answered is kept."""

from collections.abc import Callable
from typing import Any

import pytest

from mindtrace.jobs.adapters.redis.errors import ServerUnreachable
from mindtrace.jobs.adapters.redis.keys import QueueKeys
from mindtrace.jobs.adapters.redis.requests import (
    KEEP_ANSWER_MS,
    NumberedRequests,
    RemoteQueue,
    Senders,
    operation,
)
from mindtrace.jobs.adapters.redis.scripts import FIND_ANSWER, PUBLISH, PURGE, PUT_RECORD, Script

KEYS = QueueKeys("space", "jobs")


class Server:
    """Remembers what it is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[Script, Any, Any]] = []
        self.removed: list[str] = []

    def run(self, script: Script, keys: Any, arguments: Any, **_options: Any) -> int:
        self.sent.append((script, keys, arguments))
        return len(self.sent)

    def unlink_unless_late(self, *keys: str) -> None:
        self.removed += keys


def requests(server: Server) -> NumberedRequests[str]:
    return NumberedRequests[str](RemoteQueue(server, KEYS), PUBLISH, "me")  # type: ignore[arg-type]


def test_requests_are_numbered_and_keep_their_number_when_they_are_sent_again() -> None:
    server = Server()
    ours = requests(server)
    first, second = ours.make(["a"], "first"), ours.make(["b"], "second")
    for request in (first, first, second):
        ours.send(request)

    keys = KEYS.of(PUBLISH, "me")
    assert server.sent == [(PUBLISH, keys, [number, text]) for number, text in ("1a", "1a", "2b")]


def test_the_last_request_is_kept_and_one_that_was_overtaken_is_not() -> None:
    ours = requests(Server())
    first, second = ours.make([], "first"), ours.make([], "second")
    ours.keep(first)
    assert ours.unanswered is None
    ours.keep(second)
    assert ours.unanswered is second


def test_the_answer_of_a_request_is_looked_up_by_its_number() -> None:
    server = Server()
    ours = requests(server)

    assert ours.look_up(ours.make([], "first").number) == 1  # what this server answers
    assert server.sent == [(FIND_ANSWER, [KEYS.last("me"), KEYS.deleted], ["1", str(KEEP_ANSWER_MS), "jobs"])]


def test_the_end_removes_the_record_and_failing_to_is_no_error() -> None:
    server = Server()
    requests(server).end("more")
    assert server.removed == [KEYS.last("me"), "more"]

    def unreachable(*_keys: str) -> None:
        raise ServerUnreachable(OSError("away"), may_have_run=False)

    server.unlink_unless_late = unreachable  # type: ignore[method-assign]
    requests(server).end()


def test_an_operation_numbers_its_requests_and_removes_its_record() -> None:
    server = Server()
    with operation(RemoteQueue(server, KEYS), PURGE) as run:  # type: ignore[arg-type]
        assert [run(["500"]), run(["500"])] == [1, 2]

    assert [arguments for _, _, arguments in server.sent] == [
        ["1", str(KEEP_ANSWER_MS), "500"],
        ["2", str(KEEP_ANSWER_MS), "500"],
    ]
    (removed,) = server.removed
    assert removed == server.sent[0][1][-1]


def test_an_operation_that_fails_leaves_its_record_to_expire() -> None:
    server = Server()
    with pytest.raises(ZeroDivisionError), operation(RemoteQueue(server, KEYS), PURGE):  # type: ignore[arg-type]
        raise ZeroDivisionError
    assert server.removed == []


# -- senders --------------------------------------------------------------------------------------


class Busy(Server):
    """A server that does something else while it is asked."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def run(self, script: Script, keys: Any, arguments: Any, **_options: Any) -> int:
        answer = super().run(script, keys, arguments)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return answer


def senders(server: Server) -> Senders:
    return Senders(server, lambda sender: f"last:{sender}")  # type: ignore[arg-type]


def test_a_sender_numbers_its_requests_and_is_used_again() -> None:
    server = Server()
    ours = senders(server)
    assert [ours.run(PUT_RECORD, ["key"], [text]) for text in "ab"] == [1, 2]

    (_, first_keys, first), (_, second_keys, second) = server.sent
    assert first_keys == second_keys
    assert (first_keys[0][:5], first_keys[1:]) == ("last:", ["key"])
    assert (first, second) == (["1", str(KEEP_ANSWER_MS), "a"], ["2", str(KEEP_ANSWER_MS), "b"])


def test_requests_at_the_same_time_have_senders_of_their_own() -> None:
    server = Busy()
    ours = senders(server)
    server.meanwhile = lambda: ours.run(PUT_RECORD, [], [])
    ours.run(PUT_RECORD, [], [])
    ours.run(PUT_RECORD, [], [])

    first, second, third = ((keys[0], arguments[0]) for _, keys, arguments in server.sent)
    assert first[0] != second[0]
    assert first[1] == second[1] == "1"
    assert third == (first[0], "2")


def test_a_sender_that_got_no_answer_is_given_up_and_its_record_left_to_expire() -> None:
    def unreachable() -> None:
        raise ServerUnreachable(OSError("away"), may_have_run=True)

    server = Busy()
    ours = senders(server)
    server.meanwhile = unreachable
    with pytest.raises(ServerUnreachable):
        ours.run(PUT_RECORD, [], [])
    ours.run(PUT_RECORD, [], [])
    ours.end()
    ours.end()

    first, second = (keys[0] for _, keys, _ in server.sent)
    assert first != second
    assert server.removed == [second]
