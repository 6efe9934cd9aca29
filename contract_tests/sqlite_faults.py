"""Faults in the statements of the SQLite adapter."""

from .changed_adapters import TextFault

FAULTS = (
    TextFault(
        "ARetryForgetsThePriority",
        "A retry reads no priority, so that the job joins behind all others.",
        ("ORD-3",),
        r"SELECT CAST\(attempt AS INTEGER\), CAST\(priority AS INTEGER\), history",
        "SELECT CAST(attempt AS INTEGER), 0, history",
    ),
    TextFault(
        "ARedriveForgetsThePriority",
        "A redrive returns no priority, so that the jobs join behind all others.",
        ("ORD-3", "DLQ-2"),
        r"RETURNING CAST\(priority AS INTEGER\)",
        "RETURNING 0",
    ),
    TextFault(
        "ADelayForgetsThePriority",
        "The sweep of what is due doesn't read the priority.",
        ("ORD-3",),
        r"CAST\(coalesce\(priority, 0\) AS INTEGER\) FROM delay",
        "0 FROM delay",
    ),
    TextFault(
        "LosesExpiredLeasesBeyondASweep",
        "The leases of a sweep are read with a limit, and deleted by their end without one.",
        ("LSE-1", "LSE-2", "I1"),
        r"^DELETE FROM lease WHERE queue = \? AND ends = \? AND seq = \?$",
        "DELETE FROM lease WHERE queue = ? AND ends = ? AND seq >= ?",
    ),
    TextFault(
        "LosesWhatIsDueBeyondASweep",
        "The due jobs of a sweep are read with a limit, and deleted by their moment without one.",
        ("DLY-2", "I1"),
        r"^DELETE FROM delay WHERE queue = \? AND due = \? AND seq = \?$",
        "DELETE FROM delay WHERE queue = ? AND due = ? AND seq >= ?",
    ),
    TextFault(
        "WhatIsDueComesInPublishOrder",
        "Jobs that are due join in the order of their publish, not in that in which they are due.",
        ("DLY-2",),
        r"AND due <= \? ORDER BY due, seq LIMIT",
        "AND due <= ? ORDER BY seq LIMIT",
    ),
    TextFault(
        "AFormerEndAnswersForALiveJob",
        "Of many results, those of ids that are used again are answered with how the former job ended.",
        ("RES-1",),
        r"^SELECT id, NULL FROM job WHERE queue = \?",
        "SELECT id, NULL FROM job WHERE 0 > ?",
    ),
    TextFault(
        "ResultsIgnoreCase",
        "The column of ids is compared without regard to case.",
        ("RES-1", "PUB-2"),
        r"FROM result WHERE queue = \? AND id = \?",
        "FROM result WHERE queue = ? AND id = ? COLLATE NOCASE",
    ),
    TextFault(
        "ResultsOfAllQueuesAreOne",
        "The query of a result forgets the queue.",
        ("RES-1", "ADM-3", "CON-2"),
        r"AS BLOB\) END FROM result WHERE queue = \? AND id = \?",
        "AS BLOB) END FROM result WHERE ? > 0 AND id = ?",
    ),
    TextFault(
        "ResultsExpireAtWholeSeconds",
        "The end of a result's time is cut to whole seconds.",
        ("RES-1",),
        r"INTO result \(seq, queue, id, expires, body\) VALUES \(\?, \?, \?, \?, \?\)",
        "INTO result (seq, queue, id, expires, body) VALUES (?, ?, ?, ? / 1000000 * 1000000, ?)",
    ),
    TextFault(
        "ListsAtMostAHundred",
        "A page of dead letters has a hundred at most.",
        ("DLQ-1",),
        r"ORDER BY death LIMIT \? OFFSET \?",
        "ORDER BY death LIMIT min(?, 100) OFFSET ?",
    ),
    TextFault(
        "RedrivesTheFirstFiveHundred",
        "Redriving all ends with the five hundredth death.",
        ("DLQ-2", "DLQ-3"),
        r"SELECT coalesce\(max\(death\), 0\) FROM dead",
        "SELECT coalesce(min(death) + 499, 0) FROM dead",
    ),
    TextFault(
        "KeepsTheFirstThousandCharactersOfAnError",
        "The error of a dead letter is cut in the statement that stores it.",
        ("SET-3", "RES-1"),
        r"INTO dead \(queue, seq, reason, error, died, expires\) VALUES \(\?, \?, \?, \?, \?, \?\)",
        "INTO dead (queue, seq, reason, error, died, expires) VALUES (?, ?, ?, substr(?, 1, 1000), ?, ?)",
    ),
    TextFault(
        "CountsExpiredLeasesTwice",
        "A lease that has ended counts as ready and as in flight.",
        ("CNT-1", "I9", "LSE-1", "LSE-2"),
        r"SELECT count\(\*\) FROM lease WHERE queue = \? AND ends <= \?",
        "SELECT count(*) * 2 FROM lease WHERE queue = ? AND ends <= ?",
    ),
)

NOBODY_IS_WOKEN = TextFault(
    "NobodyIsWoken",
    "No wake-up is sent, and a poll of a quarter of a second hides it.",
    ("RCV-2", "RES-1", "DLY-2"),
    "",
    "",
)
"""Built in by ``unwoken_files``."""
