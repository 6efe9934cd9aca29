"""How often settlements are sent again that a broker defers, and of how many jobs.

A broker that takes no messages for a while can't carry out a retry, a death or a release: each writes one.
Whoever holds such a job tries again, and takes fewer others (SET-4).
"""

AGAIN_S = 0.5
"""How long to wait before a deferred settlement is sent again."""
MOST_DEFERRED = 1000
"""Of how many jobs whose settlements are deferred one consumer takes no more."""
