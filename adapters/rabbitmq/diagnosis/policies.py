"""What policies of RabbitMQ do to the queues of jobs that they apply to.

An operator sets policies, and they change queues that exist. Where a policy and an argument of the queue say
different numbers, the lower one applies. So no argument protects from a policy's time to live or length.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ....ports import Finding, Verdict
from ..delays import all_levels
from ..topology import DEAD_ARGUMENTS, QUEUE_TYPES, Names, namespace_prefix

SUBJECT = "policies"
"""What the findings are called."""


class Harm(NamedTuple):
    """What a key of a policy does to jobs."""

    verdict: Verdict
    text: str
    is_time: bool = False
    """Whether the value is a time in milliseconds."""

    def described(self, key: str, value: object) -> str:
        """The key with its value, and what it does."""
        if self.is_time and isinstance(value, int):
            value = f"{value / 1000:g} s"
        return f"{key} {value}: {self.text}"


HARMS: dict[str, Harm] = {
    "message-ttl": Harm(
        Verdict.WRONG,
        "a job that waits for longer becomes a dead letter, a dead letter of that age is deleted, and a "
        "longer delay ends early",
        is_time=True,
    ),
    "expires": Harm(
        Verdict.WRONG,
        "a queue that no worker uses for so long is deleted with its jobs, and its dead letters and delayed "
        "jobs even if one does",
        is_time=True,
    ),
    "delivery-limit": Harm(
        Verdict.WRONG,
        "a job that came back more often becomes a dead letter, whatever its crash budget, and a dead letter "
        "that was listed more often is deleted",
    ),
    "overflow": Harm(
        Verdict.WRONG,
        "where a max-length applies, the oldest jobs become dead letters, the oldest dead letters are "
        "deleted, and delays end early",
    ),
    "max-length": Harm(
        Verdict.DOUBTFUL,
        "a publish is refused while so many jobs wait, and a delayed job that is due then is in no count",
    ),
    "max-length-bytes": Harm(
        Verdict.DOUBTFUL,
        "a publish is refused while jobs of so many bytes wait, and a delayed job that is due then is in no "
        "count",
    ),
    "consumer-timeout": Harm(
        Verdict.DOUBTFUL,
        "a job that runs for longer is taken from its worker, counted as a crash, and run again",
        is_time=True,
    ),
}
"""By the key of a policy. Other keys do no harm, or an argument of ours outranks them."""
_HARMLESS = {("overflow", "reject-publish")}
_OF_STREAMS = frozenset({"max-age", "stream-max-segment-size-bytes", "initial-cluster-size"})
_UNSUPPORTED = {
    "quorum": _OF_STREAMS | {"queue-mode"},
    "classic": _OF_STREAMS
    | {
        "delivery-limit",
        "dead-letter-strategy",
        "max-in-memory-length",
        "max-in-memory-bytes",
        "target-group-size",
    },
}
"""Keys that a type of queue doesn't know: RabbitMQ applies nothing of a policy that has one."""
_SHOWN = 3
"""How many queues a finding names."""


class Policy(NamedTuple):
    """A policy, as the management API tells it."""

    name: str
    is_operators: bool
    """Whether it is an operator policy, which applies beside any other."""
    pattern: str
    applies_to: str
    priority: int
    definition: Mapping[str, Any]

    def covers(self, queue: str, type_: str) -> bool:
        """Whether RabbitMQ may apply it to a queue of that name and type."""
        if self.applies_to not in ("all", "queues", f"{type_}_queues"):
            return False
        if not _UNSUPPORTED.get(type_, frozenset()).isdisjoint(self.definition):
            return False
        try:
            return re.search(self.pattern, queue) is not None
        except re.error:  # Erlang's dialect knows more
            return False

    def finding(self, queues: Sequence[str], namespace: str) -> Finding | None:
        """What it does to ``queues``, or None if it does no harm."""
        harms = {
            key: HARMS[key]
            for key, value in self.definition.items()
            if key in HARMS and (key, value) not in _HARMLESS
        }
        if not harms:
            return None
        is_wrong = any(harm.verdict is Verdict.WRONG for harm in harms.values())
        kind = "operator policy" if self.is_operators else "policy"
        what = "; ".join(harm.described(key, self.definition[key]) for key, harm in harms.items())
        remedy = f"give it a pattern that leaves out the names that begin with {namespace_prefix(namespace)}"
        if not self.is_operators:
            remedy += f", or set a harmless one for these of a higher priority than {self.priority}"
        return Finding(
            Verdict.WRONG if is_wrong else Verdict.DOUBTFUL,
            SUBJECT,
            f"{kind} {self.name!r} on {_listed(queues)}: {what}",
            remedy,
        )


def harms_of(policies: Sequence[Policy], queues: Mapping[str, str], namespace: str) -> list[Finding]:
    """Return a finding for each policy that harms queues of a namespace, present ones or those to come.

    Args:
        policies: All of the virtual host.
        queues: The types of the queues that exist, by name.
        namespace: Whose queues these are.
    """
    findings = []
    holding = {name: type_ for name, type_ in queues.items() if _holds_jobs(name)}
    for policy in policies:
        names = [name for name, type_ in holding.items() if _applies(policy, policies, name, type_)]
        if any(_applies(policy, policies, name, type_) for name, type_ in _to_come(namespace)):
            names.append("queues to come")
        if names and (finding := policy.finding(names, namespace)) is not None:
            findings.append(finding)
    return findings


def _holds_jobs(name: str) -> bool:
    """Whether jobs are in a part of a queue: not so where consumers only wait, or a lock is held."""
    part = name.partition("/")[2].partition(":")[2]
    return part in ("", "dead") or part.startswith("delay")


def _to_come(namespace: str) -> Iterator[tuple[str, str]]:
    """Names and types as new queues have them."""
    names = Names(namespace, "a-new-queue")
    for type_ in QUEUE_TYPES.values():
        yield names.work, type_
    for part in (names.dead, *(levels.level(0) for levels in all_levels(names))):
        yield part, DEAD_ARGUMENTS["x-queue-type"]


def _applies(policy: Policy, policies: Sequence[Policy], queue: str, type_: str) -> bool:
    """Whether it covers a queue, and none of its sort does that outranks it."""
    return policy.covers(queue, type_) and not any(
        other.is_operators is policy.is_operators
        and other.priority > policy.priority
        and other.covers(queue, type_)
        for other in policies
    )


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
