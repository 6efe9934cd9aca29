"""Every step that a job takes from one folder to another."""

from collections.abc import Iterator, Sequence

from mindtrace.jobs.domain.errors import BackendError
from mindtrace.jobs.domain.limits import check_name
from mindtrace.jobs.ports import Ack, Dead, Message, PublishOutcome, PublishStatus, Retry, Settlement

from .folder import QueueFolder, State
from .label import Label, moment


def publish(folder: QueueFolder, messages: Sequence[Message]) -> list[PublishOutcome]:
    """Let ``messages`` join the queue, in order, once all of them are on the disk."""
    for message in messages:
        check_name("job id", message.id)  # which becomes part of a file's name
    tokens = [folder.write(message.body) for message in messages]
    with folder.locked() as next_place:
        outcomes = [
            _admit(folder, message, token, next_place())
            for message, token in zip(messages, tokens, strict=True)
        ]
    folder.sync()
    return outcomes


def _admit(folder: QueueFolder, message: Message, token: str, place: int) -> PublishOutcome:
    label = Label(0, place, token, attempt=1, number=0, crashes=0, id=message.id)
    try:
        folder.admit(*_after(label, message.delay_s))
    except BackendError as error:  # too late to raise: others of the batch may be in the queue
        return PublishOutcome(message.id, PublishStatus.REJECTED, error)
    return PublishOutcome(message.id, PublishStatus.ACCEPTED)


def _after(label: Label, delay_s: float) -> tuple[Label, State]:
    if delay_s > 0:
        return label._replace(when=moment(delay_s)), State.DELAYED
    return label._replace(when=0), State.READY


def sweep(folder: QueueFolder) -> int | None:
    """Make ready what is due and what was leased too long; say when there will be more of that."""
    due, next_due = _past(folder.labels(State.DELAYED))
    for label in due:
        folder.move(label, State.DELAYED, label._replace(when=0, place=label.when), State.READY)
    expired, next_expiry = _past(folder.labels(State.LEASED))
    if expired:
        with folder.locked():  # so that nobody is writing into a file that is taken back
            for label in expired:
                give_back(folder, label, crashed=True)
    return min((when for when in (next_due, next_expiry) if when is not None), default=None)


def _past(labels: Iterator[Label]) -> tuple[list[Label], int | None]:
    """The labels whose moment has come, and the moment of the first whose hasn't."""
    now, past = moment(), list[Label]()
    for label in labels:
        if label.when > now:
            return past, label.when
        past.append(label)
    return past, None


def lease(folder: QueueFolder, max_jobs: int, lease_s: float, receipts: Iterator[str]) -> list[Label]:
    """Take up to ``max_jobs`` jobs that are ready, in order."""
    leased: list[Label] = []
    until = moment(lease_s)
    for label in folder.labels(State.READY):
        if len(leased) == max_jobs:
            break
        mine = label._replace(when=until, token=next(receipts), number=label.number + 1)
        if folder.move(label, State.READY, mine, State.LEASED):  # else another consumer was faster
            leased.append(mine)
    return leased


def extend(folder: QueueFolder, label: Label, lease_s: float) -> Label | None:
    """Lease a job for another ``lease_s`` from now; None where it isn't leased any more."""
    longer = label._replace(when=moment(lease_s))
    held = label.when > moment() and folder.move(label, State.LEASED, longer, State.LEASED)
    return longer if held else None


def settle(folder: QueueFolder, label: Label, settlement: Settlement) -> bool:
    """End a lease as ``settlement`` says; answer whether the job was still leased."""
    if label.when <= moment():
        return False
    if isinstance(settlement, Ack):
        return folder.drop(label, State.LEASED)
    if isinstance(settlement, Retry | Dead):
        return _fail(folder, label, settlement)
    return give_back(folder, label)


def give_back(folder: QueueFolder, label: Label, *, crashed: bool = False) -> bool:
    """Return a leased job to its place among those that are ready."""
    ready = label._replace(when=0, crashes=label.crashes + crashed)
    return folder.move(label, State.LEASED, ready, State.READY)


def _fail(folder: QueueFolder, label: Label, settlement: Retry | Dead) -> bool:
    with folder.locked() as next_place:
        if isinstance(settlement, Dead):
            to, target = label._replace(when=next_place()), State.DEAD
            reason = {"reason": settlement.reason}
        else:
            again = label._replace(place=next_place(), attempt=label.attempt + 1)
            (to, target), reason = _after(again, settlement.delay_s), {}
        noted = folder.note(label, attempt=label.attempt, error=settlement.error, **reason)
        return noted and folder.move(label, State.LEASED, to, target)


def purge(folder: QueueFolder) -> int:
    """Drop what waits: the delayed first, as what becomes ready meanwhile is then met there."""
    sweep(folder)
    waiting = ((label, state) for state in (State.DELAYED, State.READY) for label in folder.labels(state))
    return sum(folder.drop(label, state) for label, state in waiting)


def dead(folder: QueueFolder, ids: Sequence[str] | None = None) -> list[Label]:
    """The dead jobs, or those of these ids, oldest first."""
    wanted = None if ids is None else set(ids)
    return [label for label in folder.labels(State.DEAD) if wanted is None or label.id in wanted]


def redrive(folder: QueueFolder, ids: Sequence[str] | None) -> int:
    """Let dead jobs join the queue again, with fresh budgets."""
    redriven = 0
    with folder.locked() as next_place:
        for label in dead(folder, ids):
            fresh = label._replace(when=0, place=next_place(), attempt=1, crashes=0)
            redriven += folder.move(label, State.DEAD, fresh, State.READY)
    return redriven


def discard(folder: QueueFolder, ids: Sequence[str] | None) -> int:
    """Drop dead jobs."""
    return sum(folder.drop(label, State.DEAD) for label in dead(folder, ids))
