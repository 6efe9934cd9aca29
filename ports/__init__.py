"""The interfaces between the application and a broker. May import the domain, nothing else of ours."""

from .backend import OrchestratorBackend
from .capabilities import Capabilities, Durability, Lease, Redelivery
from .consumer import ConsumerBackend
from .delivery import Delivery
from .ended_jobs import EndedJobs, UnknownEnds
from .findings import Finding, Verdict
from .migrations import Migrates, Migration
from .observer import Attempt, Observer, Outcome
from .publishing import Message, PublishOutcome, PublishStatus
from .queue_contents import DeadLetter, Failure, QueueCounts
from .results import EndedJob, JobResult, JobStatus, ResultStatus, ResultStore
from .settlement import Ack, Dead, Release, Retry, Settled, Settlement, SettleOutcome

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
    "EndedJobs",
    "Failure",
    "Finding",
    "JobResult",
    "JobStatus",
    "Lease",
    "Message",
    "Migrates",
    "Migration",
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
    "UnknownEnds",
    "Verdict",
]
