"""``limits``: what it shows of limits, and what it changes."""

from typing import Any

import pytest

from mindtrace.jobs import AnyJSON, JobSchema, Limit, LimitUse, Orchestrator, Rate, RateTerms
from mindtrace.jobs.application.limits.keys import prefix_of
from mindtrace.jobs.cli.errors import Exit
from mindtrace.jobs.ports import Place

from .conftest import Command

GPU = Limit(4, name="gpu")


@pytest.fixture
def limited(orchestrator: Orchestrator) -> Orchestrator:
    """With a limit of two queues, one by a field, and a rate; nobody here has registered them."""
    from mindtrace.jobs.application.limits.declarations import Declarations
    from mindtrace.jobs.application.limits.in_force import InForce

    by_camera = Limit(2, by="camera")
    declared: list[InForce[Any]] = [InForce("detect", GPU), InForce("segment", GPU)]
    declared += [InForce("frames", by_camera), InForce("api", Rate(100, per_s=60.0, burst=20))]
    store = orchestrator.backend.coordination
    Declarations(store, orchestrator.logger).renew(declared)
    gpu, camera = prefix_of("detect", GPU), prefix_of("frames", by_camera) + '["north"]'
    places = [Place(gpu, 4, f"job-{n}") for n in range(5)] + [Place(camera, 2, f"job-{n}") for n in range(3)]
    store.take_places(places, ttl_s=600.0)
    return orchestrator


def test_they_are_shown(command: Command, limited: Orchestrator) -> None:
    limited.change_limit("gpu", 8)
    header, *rows = command("limits").out.splitlines()

    assert header.split("  ")[0] == "name"
    api, frames, gpu, change, key = (" ".join(row.split()) for row in rows)
    assert api == "api rate api - 100 per 60 s, 20 at once 100 per 60 s, 20 at once - - 0.0 s"
    assert frames == "frames limit frames camera 2 2 2 1 -"
    assert gpu == "gpu limit detect, segment - 4 8 4 1 -"
    assert change.startswith("limit gpu is changed to 8 since")
    assert key == 'frames ["north"]: 2 used, 1 waiting'


def test_they_are_shown_as_json(command: Command, limited: Orchestrator) -> None:
    change = limited.change_rate("api", 10, per_s=5.0)
    api, frames, gpu = command("limits", "--json", "--busiest", "1").json

    assert api == {
        "name": "api",
        "kind": "rate",
        "is_named": False,
        "queues": ["api"],
        "by": [],
        "declared": {"count": 100, "per_s": 60.0, "burst": 20},
        "allowed": {"count": 10, "per_s": 5.0, "burst": 10},
        "change": {
            "count": 10,
            "per_s": 5.0,
            "burst": 10,
            "since": change.since.isoformat(),
            "by": change.by,
        },
        "next_turn_s": 0.0,
        "interval_s": 0.5,
    }
    assert frames["busiest"] == [{"key": '["north"]', "used": 2, "waiting": 1}]
    assert (frames["used"], frames["waiting"], frames["keys"], frames["change"]) == (2, 1, 1, None)
    assert (gpu["declared"], gpu["allowed"], gpu["used"], gpu["waiting"]) == (4, 4, 4, 1)


def test_there_may_be_none(command: Command, orchestrator: Orchestrator) -> None:
    assert "no limits are known yet" in command("limits").out
    assert command("limits", "--json").json == []


def test_a_limit_is_changed_and_reset(command: Command, limited: Orchestrator) -> None:
    assert command("limits", "set", "gpu", "8").out == "limit gpu allows 8\n"
    (use,) = [each for each in limited.limits() if each.name == "gpu"]
    assert isinstance(use, LimitUse)
    assert use.allowed == 8
    assert command("limits", "set", "gpu", "9", "--json").json["count"] == 9
    assert command("limits", "reset", "gpu").out == "limit gpu allows what the code says\n"
    assert command("limits", "reset", "gpu").out == "limit gpu wasn't changed\n"
    assert command("limits", "reset", "gpu", "--json").json == {
        "name": "gpu",
        "kind": "limit",
        "was_changed": False,
    }


def test_a_rate_is_changed_and_reset(command: Command, limited: Orchestrator) -> None:
    assert command("limits", "set", "api", "200").out == "rate api allows 200 per 60 s, 20 at once\n"
    answer = command("limits", "set", "api", "5", "--per", "1", "--burst", "1")
    assert answer.out == "rate api allows 5 per 1 s\n"
    (use,) = [each for each in limited.limits() if each.name == "api"]
    assert use.allowed == RateTerms(5, 1.0, 1)
    assert command("limits", "reset", "api").out == "rate api allows what the code says\n"


def test_what_cannot_be_is_refused(command: Command, limited: Orchestrator) -> None:
    for arguments, code, words in (
        (("set", "gpus", "8"), Exit.NOT_FOUND, "did you mean 'gpu'?"),
        (("set", "gpu", "0"), Exit.USAGE, "limit count 0"),
        (("set", "gpu", "8", "--per", "1"), Exit.USAGE, "is no rate"),
        (("set", "api", "8", "--per", "0"), Exit.USAGE, "per_s 0"),
        (("set", "api", "8", "--kind", "limit"), Exit.NOT_FOUND, "limit 'api': not declared"),
        (("reset", "nothing"), Exit.NOT_FOUND, "limit 'nothing': not declared"),
    ):
        answer = command("limits", *arguments)
        assert (answer.code, words in answer.err) == (code, True), (arguments, answer)


def test_a_name_of_both_must_say_which(command: Command, orchestrator: Orchestrator) -> None:
    schema = JobSchema("api", AnyJSON, concurrency_limit=Limit(1), rate=Rate(1, per_s=1))
    with orchestrator:
        orchestrator.register(schema)
        orchestrator.change_limit("api", 2)
        orchestrator.change_rate("api", 2)
        answer = command("limits", "reset", "api")
        assert (answer.code, "--kind" in answer.err) == (Exit.USAGE, True)
        assert "rate 'api'" in command("limits", "set", "api", "8", "--per", "60").err
        answer = command("limits", "reset", "api", "--kind", "rate")
        assert answer.out == "rate api allows what the code says\n"
        assert command("limits", "reset", "api").code == Exit.OK
