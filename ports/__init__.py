"""The interfaces between the application and a broker. May import the domain, nothing else of ours."""

from .backend import OrchestratorBackend
from .capabilities import Capabilities, Durability, Lease, Redelivery
from .consumer import ConsumerBackend
from .findings import Finding, Verdict
from .observer import Attempt, Observer, Outcome
from .results import EndedJob, ResultStore
from .values import (
    Ack,
    Dead,
    DeadLetter,
    Delivery,
    Failure,
    JobResult,
    Message,
    PublishOutcome,
    PublishStatus,
    QueueCounts,
    Release,
    ResultStatus,
    Retry,
    Settled,
    Settlement,
    SettleOutcome,
)

__all__ = [
    "Ack",
    "Attempt",
    "Capabilities",
    "ConsumerBackend",
    "Dead",
    "DeadLetter",
    "Delivery",
    "Durability",
    "EndedJob",
    "Failure",
    "Finding",
    "JobResult",
    "Lease",
    "Message",
    "Observer",
    "OrchestratorBackend",
    "Outcome",
    "PublishOutcome",
    "PublishStatus",
    "QueueCounts",
    "Redelivery",
    "Release",
    "ResultStatus",
    "ResultStore",
    "Retry",
    "SettleOutcome",
    "Settled",
    "Settlement",
    "Verdict",
]
