"""What the server keeps for a consumer: its requests and leases, until it may forget them (ADR 82)."""


class KeptRequests:
    """The requests of one consumer that the server has a row of, by token.

    A request that took or extended jobs is also their lease. The server may forget it once all of them are
    settled or have a later lease. A lease of which that isn't known is never forgotten: it ends by its clock.
    """

    def __init__(self) -> None:
        self._jobs: dict[int, int] = {}
        """How many jobs of each lease are held still, without the leases of which that isn't known."""
        self._over: list[int] = []
        self._last = 0

    @property
    def last(self) -> int:
        """The last answered request that settled or extended anything; 0 for none.

        If the server doesn't know it, a crash has taken back what the consumer was told, and the server
        forgets nothing.
        """
        return self._last

    def over(self) -> list[int]:
        """Return what the server needn't remember, if it knows the last request."""
        return self._over

    def forgettable(self) -> list[int]:
        """Return what the server may forget at the next request, which needs the last one still."""
        return [token for token in self._over if token != self._last]

    def begin(self, token: int, jobs: int) -> None:
        """Note how many jobs have the request as their lease."""
        if jobs:
            self._jobs[token] = jobs
        else:
            self._over.append(token)

    def leave(self, token: int) -> None:
        """Note that a job has this lease no more."""
        left = self._jobs.pop(token, 0) - 1
        if left > 0:
            self._jobs[token] = left
        elif left == 0:
            self._over.append(token)

    def distrust(self, token: int) -> None:
        """Note that a job of this lease was lost: nobody but the server knows what became of it."""
        self._jobs.pop(token, None)

    def answered(self, token: int, *, knew_last: bool) -> None:
        """Note the answer to a request that settled or extended, which told what was forgettable.

        Args:
            token: The request.
            knew_last: Whether the server knew the last request before. If not, jobs that had left a lease may
                be in it again.
        """
        self._over = [each for each in self._over if each == self._last]
        if self._last and not knew_last:
            self._jobs.clear()
        self._last = token
