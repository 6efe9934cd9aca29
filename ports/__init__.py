"""The interfaces between the application and a broker. May import the domain, nothing else of ours."""

from .backend import OrchestratorBackend
from .capabilities import Capabilities, Durability, Lease, Redelivery
from .consumer import ConsumerBackend
from .receipts import Receipts
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
    "Capabilities",
    "ConsumerBackend",
    "Dead",
    "DeadLetter",
    "Delivery",
    "Durability",
    "EndedJob",
    "Failure",
    "JobResult",
    "Lease",
    "Message",
    "OrchestratorBackend",
    "PublishOutcome",
    "PublishStatus",
    "QueueCounts",
    "Receipts",
    "Redelivery",
    "Release",
    "ResultStatus",
    "ResultStore",
    "Retry",
    "SettleOutcome",
    "Settled",
    "Settlement",
]
