"""Of the policies of a virtual host, those that remove or refuse jobs are told, with what they say."""

from typing import Any

import pytest

from mindtrace.jobs.adapters.rabbitmq.diagnosis.policies import HARMS, Policy, harms_of
from mindtrace.jobs.ports import Finding, Verdict

QUEUES = {
    "mtj:n/a": "quorum",
    "mtj:n/a:dead": "quorum",
    "mtj:n/a:delay.3": "quorum",
    "mtj:n/a:alive": "quorum",
    "mtj:n/b": "classic",
    "mtj:n/c": "quorum",
}
SPARED = "leaves out the names that begin with mtj:n/"


def policy(
    definition: dict[str, Any],
    pattern: str = "^mtj:",
    applies_to: str = "queues",
    *,
    name: str = "p",
    is_operators: bool = False,
    priority: int = 0,
) -> Policy:
    return Policy(name, is_operators, pattern, applies_to, priority, definition)


def found(*policies: Policy) -> list[Finding]:
    return harms_of(policies, QUEUES, "n")


@pytest.mark.parametrize("key", HARMS)
@pytest.mark.parametrize("is_operators", [False, True])
def test_each_that_harms_jobs_is_told_with_its_value_and_a_remedy(key: str, is_operators: bool) -> None:
    (finding,) = found(policy({key: 5000}, is_operators=is_operators))
    kind = "operator policy 'p'" if is_operators else "policy 'p'"
    value = "5 s" if HARMS[key].is_time else "5000"

    assert finding.verdict is HARMS[key].verdict
    assert finding.what.startswith(f"{kind} on mtj:n/a, mtj:n/a:dead, mtj:n/a:delay.3 and ")
    assert f" more: {key} {value}: {HARMS[key].text}" in finding.what
    assert SPARED in finding.remedy
    assert ("of a higher priority than 0" in finding.remedy) is not is_operators


@pytest.mark.parametrize(
    "definition",
    [
        {},
        {"overflow": "reject-publish"},
        {"queue-mode": "lazy"},
        {"queue-version": 2, "queue-leader-locator": "balanced"},
        {"dead-letter-exchange": "x", "dead-letter-routing-key": "y"},
    ],
)
def test_what_our_arguments_outrank_is_harmless(definition: dict[str, Any]) -> None:
    assert found(policy(definition)) == []


@pytest.mark.parametrize(
    ("pattern", "applies_to", "queues"),
    [
        ("^mtj:n/a$", "queues", "mtj:n/a"),
        ("^mtj:n/a$", "all", "mtj:n/a"),
        ("^mtj:n/a$", "quorum_queues", "mtj:n/a"),
        ("^mtj:n/a$", "classic_queues", None),
        ("^mtj:n/a$", "exchanges", None),
        ("^mtj:n/[ab]$", "classic_queues", "mtj:n/b"),
        ("dead$", "queues", "mtj:n/a:dead, queues to come"),
        ("alive$", "queues", None),
        (":delay[.]", "queues", "mtj:n/a:delay.3, queues to come"),
        ("^other", "queues", None),
        ("(?<bad", "queues", None),
    ],
)
def test_only_the_queues_it_applies_to_are_told(pattern: str, applies_to: str, queues: str | None) -> None:
    """By their names and types; those to come as well, but none in which no job ever is."""
    findings = found(policy({"message-ttl": 1}, pattern, applies_to))
    assert [finding.what.partition(": message-ttl")[0] for finding in findings] == (
        [f"policy 'p' on {queues}"] if queues else []
    )


def test_a_policy_that_another_outranks_is_not_told() -> None:
    """Only those of operators apply beside the others."""
    low = policy({"message-ttl": 1}, name="low")
    high = policy({}, name="high", priority=1)
    operators = policy({"max-length": 1}, name="op", is_operators=True)

    assert [finding.what.split("'")[1] for finding in found(low, high, operators)] == ["op"]
    assert [finding.what.split("'")[1] for finding in found(low, operators)] == ["low", "op"]


def test_a_policy_with_a_key_that_a_queue_does_not_know_is_not_applied_to_it() -> None:
    """Nothing of it, nor does it outrank another."""
    (on_classic,) = found(policy({"message-ttl": 1, "queue-mode": "lazy"}, "^mtj:n/[abc]$"))
    assert on_classic.what.startswith("policy 'p' on mtj:n/b: message-ttl")
    (on_quorum,) = found(policy({"message-ttl": 1, "delivery-limit": 2}, "^mtj:n/[abc]$"))
    assert on_quorum.what.startswith("policy 'p' on mtj:n/a, mtj:n/c: message-ttl")
    lazy = policy({"queue-mode": "lazy"}, "^mtj:n/[abc]$", name="lazy", priority=1)
    (outranked,) = found(lazy, policy({"message-ttl": 1}, "^mtj:n/[abc]$"))
    assert outranked.what.startswith("policy 'p' on mtj:n/a, mtj:n/c: message-ttl")


def test_a_policy_of_several_keys_is_one_finding_of_the_worse_verdict() -> None:
    (finding,) = found(policy({"max-length": 10, "message-ttl": 1500, "queue-version": 2}))
    assert finding.verdict is Verdict.WRONG
    assert "max-length 10: " in finding.what
    assert "message-ttl 1.5 s: " in finding.what
