"""Every step that a job takes from one folder to another."""

from collections.abc import Iterator, Sequence

from mindtrace.jobs.domain.bounds import check_name
from mindtrace.jobs.domain.errors import BackendError
from mindtrace.jobs.ports import (
    Ack,
    Dead,
    Message,
    PublishOutcome,
    PublishStatus,
    Release,
    Retry,
    Settlement,
)

from .file_name import FileName, time_ns
from .folder import QueueFolder, State


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
    name = FileName(0, place, token, attempt=1, number=0, crashes=0, id=message.id)
    try:
        folder.admit(*_after(name, message.delay_s))
    except BackendError as error:  # too late to raise: others of the batch may be in the queue
        return PublishOutcome(message.id, PublishStatus.REJECTED, error)
    return PublishOutcome(message.id, PublishStatus.ACCEPTED)


def _after(name: FileName, delay_s: float) -> tuple[FileName, State]:
    if delay_s > 0:
        return name._replace(when=time_ns(delay_s)), State.DELAYED
    return name._replace(when=0), State.READY


def sweep(folder: QueueFolder) -> int | None:
    """Make ready what is due and what was leased too long; say when there will be more of that."""
    due, next_due = _split_due(folder.names(State.DELAYED))
    for name in due:
        folder.move(name, State.DELAYED, name._replace(when=0, place=name.when), State.READY)
    expired, next_expiry = _split_due(folder.names(State.LEASED))
    if expired:
        with folder.locked():  # so that nobody is writing into a file that is taken back
            for name in expired:
                release(folder, name, crashed=True)
    return min((when for when in (next_due, next_expiry) if when is not None), default=None)


def _split_due(names: Iterator[FileName]) -> tuple[list[FileName], int | None]:
    """Return the names that are due, and when the next one is."""
    now, due = time_ns(), list[FileName]()
    for name in names:
        if name.when > now:
            return due, name.when
        due.append(name)
    return due, None


def lease(folder: QueueFolder, max_jobs: int, lease_s: float, receipts: Iterator[str]) -> list[FileName]:
    """Take up to ``max_jobs`` jobs that are ready, in order."""
    leased: list[FileName] = []
    until = time_ns(lease_s)
    for name in folder.names(State.READY):
        if len(leased) == max_jobs:
            break
        mine = name._replace(when=until, token=next(receipts), number=name.number + 1)
        if folder.move(name, State.READY, mine, State.LEASED):  # else another consumer was faster
            leased.append(mine)
    return leased


def extend(folder: QueueFolder, name: FileName, lease_s: float) -> FileName | None:
    """Lease a job for another ``lease_s`` from now; None where it isn't leased any more."""
    longer = name._replace(when=time_ns(lease_s))
    held = name.when > time_ns() and folder.move(name, State.LEASED, longer, State.LEASED)
    return longer if held else None


def settle(folder: QueueFolder, name: FileName, settlement: Settlement) -> bool:
    """End a lease as ``settlement`` says; answer whether the job was still leased."""
    if name.when <= time_ns():
        return False
    if isinstance(settlement, Ack):
        return folder.drop(name, State.LEASED)
    if isinstance(settlement, Retry | Dead):
        return _fail(folder, name, settlement)
    if isinstance(settlement, Release) and settlement.delay_s > 0:
        return folder.move(name, State.LEASED, *_after(name, settlement.delay_s))
    return release(folder, name)


def release(folder: QueueFolder, name: FileName, *, crashed: bool = False) -> bool:
    """Return a leased job to its place among those that are ready."""
    ready = name._replace(when=0, crashes=name.crashes + crashed)
    return folder.move(name, State.LEASED, ready, State.READY)


def _fail(folder: QueueFolder, name: FileName, settlement: Retry | Dead) -> bool:
    with folder.locked() as next_place:
        if isinstance(settlement, Dead):
            to, target = name._replace(when=next_place()), State.DEAD
            reason = {"reason": settlement.reason}
        else:
            again = name._replace(place=next_place(), attempt=name.attempt + 1)
            (to, target), reason = _after(again, settlement.delay_s), {}
        noted = folder.note(name, attempt=name.attempt, error=settlement.error, **reason)
        return noted and folder.move(name, State.LEASED, to, target)


def purge(folder: QueueFolder) -> int:
    """Drop what waits: the delayed first, as what becomes ready meanwhile is then met there."""
    sweep(folder)
    waiting = ((name, state) for state in (State.DELAYED, State.READY) for name in folder.names(state))
    return sum(folder.drop(name, state) for name, state in waiting)


def dead(folder: QueueFolder, ids: Sequence[str] | None = None) -> list[FileName]:
    """The dead jobs, or those of these ids, oldest first."""
    wanted = None if ids is None else set(ids)
    return [name for name in folder.names(State.DEAD) if wanted is None or name.id in wanted]


def redrive(folder: QueueFolder, ids: Sequence[str] | None) -> int:
    """Let dead jobs join the queue again, with fresh budgets."""
    redriven = 0
    with folder.locked() as next_place:
        for name in dead(folder, ids):
            fresh = name._replace(when=0, place=next_place(), attempt=1, crashes=0)
            redriven += folder.move(name, State.DEAD, fresh, State.READY)
    return redriven


def discard(folder: QueueFolder, ids: Sequence[str] | None) -> int:
    """Drop dead jobs."""
    return sum(folder.drop(name, State.DEAD) for name in dead(folder, ids))
