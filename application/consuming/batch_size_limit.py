"""How many jobs of a batch fit into memory at once, as far as that has shown."""

_GROW_AFTER = 20
"""How many batches of the present size have to fit before a larger one is tried."""
_LONGEST = 16 * _GROW_AFTER
"""The most that becomes of it: each larger size that didn't fit doubles it."""


class BatchSizeLimit:
    """The largest batch that is worth a try: half of what ran out of memory, then slowly more again.

    Args:
        batch_size: What to begin with, and never to exceed.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._grow_after = _GROW_AFTER
        self._fitted = 0
        self._has_grown = False
        self.size = batch_size
        """How many jobs to run at once, at most."""

    def ran_out(self, jobs: int) -> None:
        """Learn that so many jobs, at least two, ran out of memory."""
        if self._has_grown:
            self._grow_after = min(2 * self._grow_after, _LONGEST)
        self._has_grown = False
        self._fitted = 0
        self.size = jobs // 2

    def fitted(self, jobs: int) -> bool:
        """Learn that so many jobs fitted; return whether the limit has grown by that."""
        if self.size == self._batch_size or jobs < self.size:
            return False
        self._fitted += 1
        if self._fitted < self._grow_after:
            return False
        self._fitted = 0
        self._has_grown = True
        self.size = min(self._batch_size, self.size + max(1, self.size // 4))
        return True
