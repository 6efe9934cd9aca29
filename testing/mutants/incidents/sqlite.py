"""Faults in the adapter of SQLite."""

from ..mutant import Mutant


def _python(name: str, module: str, old: str, new: str, sentence: str, *clauses: str) -> Mutant:
    return Mutant(name, f"adapters/sqlite/{module}.py", old, new, sentence, clauses)


MUTANTS: tuple[Mutant, ...] = (
    _python(
        "ALateExtensionRevives",
        "lease",
        "    if held.ends <= tx.now:\n        return None\n    ends",
        "    ends",
        "A lease that is over, and wasn't swept yet, can be extended.",
        "LSE-2",
        "LSE-4",
    ),
    _python(
        "ALateSettlementCounts",
        "settle",
        "            if held.ends <= tx.now:  # lost, even if nobody has taken it back yet\n"
        "                settled[receipt] = False\n                continue\n",
        "",
        "A job whose lease is over is settled all the same, if nobody swept it yet.",
        "LSE-2",
        "LSE-4",
    ),
    _python(
        "ARetryKeepsTheOldestFailures",
        "settle",
        "Failure(attempt, retry.error)][-MAX_HISTORY:]",
        "Failure(attempt, retry.error)][:MAX_HISTORY]",
        "The history of a dead letter lacks its last failures.",
        "DLQ-1",
    ),
    _python(
        "EndsShareASlot",
        "settle",
        "(tx.ended + n) % REMEMBERED_ENDS",
        "tx.ended % REMEMBERED_ENDS",
        "Of jobs that end in one batch only the last is remembered.",
        "RES-1",
    ),
    _python(
        "ADelayedRetryForgetsItsHistory",
        "settle",
        "json.dumps([[failure.attempt, failure.error] for failure in failures]),",
        "json.dumps([[failure.attempt, failure.error] for failure in failures[-1:]]),",
        "Only the last failure of a job is kept.",
        "DLQ-1",
    ),
    _python(
        "TheRestOfABatchWithNextJobsIsRefused",
        "settle",
        "                    refused.add(receipt)\n                    lease_again(tx, held)\n",
        "                    refused.add(receipt)\n",
        "A refused ack ends the lease: its job is in no list any more.",
        "THEN-3",
    ),
    _python(
        "APurgeLeavesWhatIsDelayedBehindReadyJobs",
        "admin",
        "    delayed = _first_delayed(tx)\n    if not all",
        "    delayed = [] if tx.ready else _first_delayed(tx)[:1]\n    if not all",
        "A purge drops one delayed job a step.",
        "ADM-2",
    ),
    _python(
        "ARedriveKeepsTheHistory",
        "admin",
        "UPDATE job SET attempt = 1, crashes = 0, history = NULL WHERE seq = ?",
        "UPDATE job SET attempt = 1, crashes = 0 WHERE seq = ?",
        "A redriven job that dies again has the failures of its first life.",
        "DLQ-2",
    ),
    _python(
        "AnEarlierResultIsTheNewJobs",
        "publish",
        "[(tx.key, message.id) for _, message in fresh]",
        "[(tx.key, message.id) for _, message in fresh[:1]]",
        "Of a batch whose ids were used before, only the first job begins without a result.",
        "RES-1",
        "PUB-4",
    ),
    _python(
        "DelaysAreRoundedDown",
        "publish",
        "(tx.now + ceil(message.delay_s * 1_000_000), seq)",
        "(tx.now + int(message.delay_s) * 1_000_000, seq)",
        "A delay of less than a second is none.",
        "DLY-1",
    ),
    _python(
        "APriorityIsForgottenWhenItIsDue",
        "lease",
        "tx.make_ready([(seq, priority) for _, seq, priority in due if isinstance(seq, int)])",
        "tx.make_ready([(seq, 0) for _, seq, _ in due if isinstance(seq, int)])",
        "A delayed job joins at priority 0.",
        "ORD-3",
    ),
    _python(
        "WhatIsToBeNewOverwrites",
        "coordination",
        "expected != self._version(key):\n            return None\n        ends",
        "expected not in (self._version(key), ABSENT):\n            return None\n        ends",
        "A record that exists is overwritten by a write that expects none.",
        "CRD-1",
        "CRD-2",
    ),
    _python(
        "ThoseWhoWaitLongestWaitOn",
        "coordination",
        '"(is_taken = 1 OR number < ?)", number',
        '"(is_taken = 1 OR number > ?)", number',
        "The newest in line gets the place.",
        "CRD-5",
    ),
)
