"""The interfaces between the application and a broker. May import the domain, nothing else of ours."""

from .backend import OrchestratorBackend
from .cancelling import CancelOutcome
from .capabilities import Capabilities, Durability, Lease, Redelivery
from .consumer import ConsumerBackend
from .coordination import (
    ABSENT,
    CoordinationStore,
    Guard,
    KeyCount,
    Place,
    PlaceCount,
    PlaceWatch,
    Record,
    Reservation,
)
from .delivery import Delivery
from .ended_jobs import EndedJobs, UnknownEnds
from .findings import Finding, Verdict
from .migrations import Migrates, Migration
from .observer import Attempt, Observer, Outcome, SlotOutcome
from .publishing import Message, PublishOutcome, PublishStatus
from .queue_contents import DeadLetter, Failure, QueueCounts
from .results import EndedJob, JobResult, JobStatus, ResultStatus, ResultStore
from .settlement import Ack, Cancel, Dead, Next, Release, Retry, Settled, Settlement, SettleOutcome
from .transactions import AsyncTransaction, Transaction

__all__ = [
    "ABSENT",
    "Ack",
    "AsyncTransaction",
    "Attempt",
    "Cancel",
    "CancelOutcome",
    "Capabilities",
    "ConsumerBackend",
    "CoordinationStore",
    "Dead",
    "DeadLetter",
    "Delivery",
    "Durability",
    "EndedJob",
    "EndedJobs",
    "Failure",
    "Finding",
    "Guard",
    "JobResult",
    "JobStatus",
    "KeyCount",
    "Lease",
    "Message",
    "Migrates",
    "Migration",
    "Next",
    "Observer",
    "OrchestratorBackend",
    "Outcome",
    "Place",
    "PlaceCount",
    "PlaceWatch",
    "PublishOutcome",
    "PublishStatus",
    "QueueCounts",
    "Record",
    "Redelivery",
    "Release",
    "Reservation",
    "ResultStatus",
    "ResultStore",
    "Retry",
    "SettleOutcome",
    "Settled",
    "Settlement",
    "SlotOutcome",
    "Transaction",
    "UnknownEnds",
    "Verdict",
]
