"""Faults in the adapter of RabbitMQ."""

from ..mutant import Mutant


def _python(name: str, module: str, old: str, new: str, sentence: str, *clauses: str) -> Mutant:
    return Mutant(name, f"adapters/rabbitmq/{module}.py", old, new, sentence, clauses)


MUTANTS: tuple[Mutant, ...] = (
    # -- requests and confirms that are lost ---------------------------------------------------------
    _python(
        "ANackIsAConfirm",
        "transport/publishing",
        "state = SendState.CONFIRMED if is_kept else SendState.REFUSED",
        "state = SendState.CONFIRMED",
        "A full queue refuses a message, and the publisher is told that it was accepted.",
        "PUB-1",
    ),
    _python(
        "WhatIsUnderWayCountsAsConfirmed",
        "transport/publishing",
        "batch.decide(message, SendState.UNKNOWN)\n        for",
        "batch.decide(message, SendState.CONFIRMED)\n        for",
        "The connection breaks before the confirm, and the message counts as kept, as in dramatiq#545.",
        "PUB-1",
        "CON-1",
    ),
    _python(
        "AConfirmOfSeveralIsForOne",
        "transport/publishing",
        "if multiple:\n            while self._under_way and next(iter(self._under_way)) <= tag:",
        "if multiple:\n            while self._under_way and next(iter(self._under_way)) < tag:",
        "Of a confirm for several messages the last one is left out, and waits until time is up.",
        "PUB-4",
        "PUB-1",
    ),
    _python(
        "AReturnIsIgnored",
        "transport/publishing",
        "                state = SendState.UNROUTABLE\n",
        "",
        "The broker returns a message that has no queue, and confirms it: it counts as accepted.",
        "PUB-3",
    ),
    _python(
        "AJobIsAckedThoughItsRetryWasRefused",
        "consumer/settler",
        "if message.state is SendState.CONFIRMED:",
        "if message.state is not SendState.UNSENT:",
        "A retry is published and refused, and the job is acknowledged all the same: it is lost.",
        "SET-2",
        "CON-1",
    ),
    _python(
        "AFullDelayLevelIsGivenUpAtOnce",
        "publisher",
        "return rounds < _ROUNDS_OF_REFUSED",
        "return False",
        "A delay queue that is being deleted refuses a message, and nobody sends it again.",
        "DLY-1",
        "ADM-2",
    ),
    _python(
        "ANextJobThatIsUnknownCountsAsThere",
        "consumer/next_job_publisher",
        "if outcome.status is PublishStatus.ACCEPTED\n",
        "if outcome.status in (PublishStatus.ACCEPTED, PublishStatus.UNKNOWN)\n",
        "The connection breaks before a next job is confirmed, and its parent is acknowledged.",
        "THEN-1",
    ),
    # -- counting and history --------------------------------------------------------------------------
    _python(
        "ACrashIsNoDelivery",
        "message",
        "return history._replace(number=history.number + crashes, crashes=history.crashes + crashes)",
        "return history._replace(crashes=history.crashes + crashes)",
        "A delivery after a crash has the number of the one before.",
        "LSE-4",
        "RTY-3",
    ),
    _python(
        "ARetryForgetsTheCrashes",
        "message",
        "history = DeliveryHistory(_whole(attempt, 1), _whole(number), _whole(crashes), failures)",
        "history = DeliveryHistory(_whole(attempt, 1), _whole(number), 0, failures)",
        "A job that fails and crashes by turns never exhausts its crash budget.",
        "RTY-3",
    ),
    _python(
        "TheOldestFailuresAreKept",
        "message",
        "for n, error in failed[-_HISTORY:])",
        "for n, error in failed[:_HISTORY])",
        "The history of a dead letter ends with its tenth failure, not its last.",
        "DLQ-1",
    ),
    _python(
        "ALongHistoryIsCutToNothing",
        "message",
        "        longest //= 2\n",
        "        longest = 2\n",
        "Where a frame has no room for a history, all of its errors are cut to two characters.",
        "DLQ-1",
    ),
    _python(
        "ADeadLetterForgetsThePriority",
        "message",
        "return Properties(id_of(properties), fresh_rank(kind, priority))",
        "return Properties(id_of(properties), fresh_rank(kind, 0))",
        "A redriven job of a priority queue comes back at priority 0.",
        "DLQ-2",
        "ORD-3",
    ),
    _python(
        "APriorityIsHalved",
        "topology",
        "return min((rank or 0) // 2, MAX_PRIORITY) if kind is QueueKind.PRIORITY else 0",
        "return min((rank or 0) // 4, MAX_PRIORITY) if kind is QueueKind.PRIORITY else 0",
        "A job of a priority queue loses half of its priority whenever it is put back.",
        "ORD-3",
        "ORD-4",
    ),
    _python(
        "AReleaseGoesToTheEnd",
        "consumer/settlement_messages",
        "return self._again(job, job.history.delivered(), returned=True)",
        "return self._again(job, job.history.delivered())",
        "A released job is put behind all others.",
        "ORD-4",
        "SET-4",
    ),
    _python(
        "AReleaseWithADelayIsOneWithout",
        "consumer/settlement_messages",
        "return self._again(job, history, delay_s=delay_s)\n            case _:",
        "return self._again(job, history)\n            case _:",
        "A job that is released with a delay comes again at once.",
        "SET-4",
        "DLY-1",
    ),
    # -- delays ----------------------------------------------------------------------------------------
    _python(
        "DelaysAreCutToWholeUnits",
        "delays",
        "units = ceil(seconds / DELAY_UNIT_S)",
        "units = max(1, int(seconds / DELAY_UNIT_S))",
        "A delay is rounded down, and its job is early.",
        "DLY-1",
    ),
    _python(
        "HighPrioritiesHaveNoLevelsOfTheirOwn",
        "delays",
        "high=(priority or 0) > _HIGHEST_NORMAL)",
        "high=False)",
        "A delayed job of high priority holds up others that are due before it.",
        "DLY-3",
    ),
    _python(
        "APurgeLeavesHighPriorities",
        "delays",
        "return DelayLevels(names, high=False), DelayLevels(names, high=True)",
        "return (DelayLevels(names, high=False),) * 2",
        "A purge, and a count, leave out delayed jobs of high priority.",
        "ADM-2",
        "CNT-1",
    ),
    # -- dead letters and results ----------------------------------------------------------------------
    _python(
        "OneChunkOfDeadLettersIsRemoved",
        "dead_letters",
        "for tag in tags:\n            channel.basic_ack(tag)",
        "for tag in tags[:100]:\n            channel.basic_ack(tag)",
        "Of each chunk that is redriven, what exceeds a hundred stays dead as well.",
        "DLQ-2",
    ),
    _python(
        "ADeadJobHasNoResult",
        "consumer/backend",
        "                case Dead(_, _, error):\n"
        "                    failed = JobResult(ResultStatus.FAILED, error=error)\n"
        "                    ended.append(EndedJob(job.id, failed, _FAILURE_TTL_S))\n",
        "",
        "Who waits for the result of a job that dies waits until time is up.",
        "RES-1",
    ),
    _python(
        "AResultIsKeptForLostJobs",
        "consumer/backend",
        "                    outcomes[place] = self._lose(settlements[place].receipt)\n"
        "                    del jobs[place]\n",
        "                    outcomes[place] = self._lose(settlements[place].receipt)\n",
        "A worker whose lease was lost writes its result over that of the worker that has the job.",
        "LSE-4",
        "RES-2",
    ),
    _python(
        "AStaleReceiptSettlesANewDelivery",
        "consumer/backend",
        "                    if job.generation != generation:\n"
        "                        outcomes[place] = self._lose(settlement.receipt)\n"
        "                        continue\n",
        "",
        "After a reconnect a tag of the old channel is sent over the new one.",
        "LSE-4",
    ),
    _python(
        "CloseKeepsWhatCameAhead",
        "consumer/backend",
        "        ahead = list(self._arrivals())\n",
        "        ahead: list[Arrival] = []\n",
        "Jobs that were on their way when a consumer closed count as crashed.",
        "RTY-3",
        "CON-1",
    ),
    _python(
        "AnInterruptIsForgotten",
        "consumer/backend",
        "        self._interrupted = True\n        self._channel.loop.wake()",
        "        self._channel.loop.wake()",
        "A stop waits until the timeout of a receive is over.",
        "RCV-2",
    ),
)
